#!/bin/sh
# SPDX-License-Identifier: MIT
#
# First process of the host under Bochs. Loads KVM, runs the command, reports its status.
# The command and all it needs are in the initramfs, at their own paths.
#
# In /sloth: kvm        list of modules, in order   command  shell script for CMD
#            NAME_options  of kvm, kvm_intel        marker   ends each output stream
# Serial:    ttyS0 the kernel's log, what we say there included   ttyS1 stdout   ttyS2 stderr

export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

# Through the kernel's log, so that no message of the kernel can break the line.
say() { echo "<2>sloth: $*" >/dev/kmsg; }
die() {
	say "init: $*"
	sleep 1000 # the lab ends the emulator
}

grep -q -w vmx /proc/cpuinfo || die "the emulated CPU has no VMX"
for m in $(cat /sloth/kvm); do
	options=
	[ "$m" = kvm ] && options=$(cat /sloth/kvm_options)
	# The options are words on purpose.
	# shellcheck disable=SC2086
	insmod "/modules/$m.ko" $options || die "cannot load $m"
done
# shellcheck disable=SC2046
insmod /modules/kvm_intel.ko $(cat /sloth/kvm_intel_options) || die "cannot load kvm_intel"
say "preemption timer $(cat /sys/module/kvm_intel/parameters/preemption_timer)"

mkdir -p /tmp
mount -t debugfs debugfs /sys/kernel/debug
for port in /dev/ttyS1 /dev/ttyS2; do
	stty -F $port raw -echo 115200 || die "no $port"
done
exec 4>/dev/ttyS1 5>/dev/ttyS2

marker=$(cat /sloth/marker)
say ready
/bin/sh -c "$(cat /sloth/command)" </dev/null >&4 2>&5 4>&- 5>&-
status=$?
printf '\000%s' "$marker" >&4
printf '\000%s' "$marker" >&5
say "exit $status"
sleep 1000
