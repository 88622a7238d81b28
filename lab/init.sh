#!/bin/sh
# SPDX-License-Identifier: MIT
#
# First process of the emulated host. Loads the modules, shows the machine's files
# below an in-memory layer for writes, runs the command, reports its status.
#
# In /sloth: boot, kvm  lists of modules, in order     command  shell script for CMD
#            NAME_options  of kvm, kvm_amd, kvm_intel   mode     pipe or tty
#            marker     ends each output stream         size     rows and columns
#            stdin      yes or no
# Ports:     1 heartbeat   2 control   3 stdout   4 stderr   5 stdin   console: hvc0

export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

die() {
	echo "<2>sloth: init: $*" >/dev/kmsg
	sleep 1
	echo o >/proc/sysrq-trigger
	sleep 60
}

for m in $(cat /sloth/boot); do
	insmod "/modules/$m.ko" || die "cannot load $m"
done

# Virtio ports appear some time after their driver.
tries=0
until set -- /dev/vport*p5 && [ -c "$1" ] && [ -c /dev/hvc0 ]; do
	tries=$((tries + 1))
	[ $tries -lt 500 ] || die "no virtio ports"
	usleep 10000
done
port=${1%5}

# A byte each second: as long as these come, the emulated host lives. The wait is the
# shell's own: a process started each second would be felt by the guest.
mkfifo /pipes/never
# shellcheck disable=SC3045
while :; do echo; read -r -t 1 _; done >"${port}1" <>/pipes/never &
echo $! >/sloth/heartbeat

exec 3<>"${port}2"
say() { echo "$*" >&3; }

mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,ro,msize=500000 machine /lower ||
	die "cannot mount the machine's files"
mount -t tmpfs -o size=80%,mode=755 writes /writes
mkdir /writes/upper /writes/work
mount -t overlay -o lowerdir=/lower,upperdir=/writes/upper,workdir=/writes/work root /root ||
	die "cannot lay memory over the machine's files"

mkdir -p /root/dev /root/proc /root/sys /root/run /root/tmp
mount -t devtmpfs dev /root/dev
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts -o ptmxmode=666 devpts /root/dev/pts
mount -t tmpfs -o mode=1777 shm /root/dev/shm
[ -e /root/dev/fd ] || {
	/bin/busybox ln -s /proc/self/fd /root/dev/fd
	/bin/busybox ln -s fd/0 /root/dev/stdin
	/bin/busybox ln -s fd/1 /root/dev/stdout
	/bin/busybox ln -s fd/2 /root/dev/stderr
}
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t debugfs debugfs /root/sys/kernel/debug
mount -t tmpfs -o mode=755 run /root/run
mkdir /root/run/sloth /root/run/lock
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=500000 share /root/run/sloth ||
	die "cannot mount the shared directory"
[ -e /root/tmp ] && /bin/busybox chmod 1777 /root/tmp

# KVM takes the TSC's frequency as it is when KVM starts. Where Linux corrects it later, by more
# than 250 ppm, KVM has each guest's TSC stand still.
tries=0
while [ "$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)" = tsc-early ] &&
	[ $tries -lt 500 ]; do
	tries=$((tries + 1))
	usleep 10000
done

for m in $(cat /sloth/kvm); do
	options=
	[ "$m" = kvm ] && options=$(cat /sloth/kvm_options)
	# The options are words on purpose.
	# shellcheck disable=SC2086
	insmod "/modules/$m.ko" $options || die "cannot load $m"
done
if grep -q -w svm /proc/cpuinfo; then
	vendor=kvm_amd
else
	vendor=kvm_intel
fi
# shellcheck disable=SC2046
[ -d "/sys/module/$vendor" ] || # the debug host's is built in
	insmod "/modules/$vendor.ko" $(cat "/sloth/${vendor}_options") || die "cannot load $vendor"
/bin/busybox ip link set lo up

script=$(cat /sloth/command)
marker=$(cat /sloth/marker)

if [ "$(cat /sloth/mode)" = tty ]; then
	exec 7<>/dev/hvc0 # the size is forgotten when nobody has it open
	# shellcheck disable=SC2046
	stty -F /dev/hvc0 sane $(cat /sloth/size)
	while read -r word rows columns <&3; do
		[ "$word" = size ] && stty -F /dev/hvc0 rows "$rows" cols "$columns"
	done &
	say ready
	setsid -c chroot /root /bin/sh -c "$script" <>/dev/hvc0 >&0 2>&1 3>&- 7>&-
	status=$?
	printf '\000%s' "$marker" >/dev/hvc0
else
	# A port can be opened once only, so the command gets pipes.
	mkfifo /pipes/out /pipes/err /pipes/in
	cat </pipes/out >"${port}3" &
	cat </pipes/err >"${port}4" &
	exec 4>/pipes/out 5>/pipes/err
	if [ "$(cat /sloth/stdin)" = yes ]; then
		cat <"${port}5" >/pipes/in &
		exec 6</pipes/in
	else
		exec 6</dev/null
	fi
	say ready
	chroot /root /bin/sh -c "$script" <&6 >&4 2>&5 3>&- 4>&- 5>&- 6>&-
	status=$?
	printf '\000%s' "$marker" >&4
	printf '\000%s' "$marker" >&5
fi
sync
say "exit $status"
# The lab ends the emulator.
sleep 1000
