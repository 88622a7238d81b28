#!/bin/sh
# SPDX-License-Identifier: MIT
#
# First process of the Linux guest of ./sloth linux. Takes its orders, a line each, from the
# serial line (lab/linux_inside.py gives them) and answers there. Lines of the protocol
# begin with @; the rest is for the log.

export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm /tmp
mount -t tmpfs shm /dev/shm
ifconfig lo 127.0.0.1 up
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty raw -echo -onlcr

# What is counted outside is read at these two moments, while nothing else happens here.
mark() {
	echo "@$1"
	read -r _
}

counts() {
	grep -E '^ *(LOC|CAL|RES|TLB):' /proc/interrupts
}

measure() {
	mark begin
	counts >/tmp/before
	"$@" >/tmp/out 2>&1
	result=$?
	counts >/tmp/after
	mark end
	sed 's/^/@before /' /tmp/before
	sed 's/^/@after /' /tmp/after
	sed 's/^/@out /' /tmp/out
	return $result
}

tcp() {
	taskset -c $((cpus - 1)) sockperf server --tcp -i 127.0.0.1 -p 5001 >/tmp/server 2>&1 &
	server=$!
	tries=0
	until netstat -ltn | grep -q :5001 || [ $tries = 100 ]; do
		usleep 100000
		tries=$((tries + 1))
	done
	measure taskset -c 0 sockperf ping-pong --tcp -i 127.0.0.1 -p 5001 -t "$1" --full-rtt
	result=$?
	kill $server
	wait $server 2>/dev/null
	return $result
}

mode() {
	case $1 in
	eager) [ ! -d /sys/module/lazy_tscdeadline ] || rmmod lazy_tscdeadline ;;
	*)
		[ ! -d /sys/module/lazy_tscdeadline ] || rmmod lazy_tscdeadline || return
		shift
		insmod /lazy_tscdeadline.ko "$@"
		;;
	esac
}

# Load while what follows goes on.
load() {
	(while :; do usleep 500; done) &
	hog=$!
	hackbench -g 1 -f 2 -l 100000 >/dev/null 2>&1 &
	bench=$!
}

unload() {
	kill $hog $bench 2>/dev/null
	wait $hog $bench 2>/dev/null
}

modules() {
	load
	n=0 result=0
	while [ $n -lt "$1" ] && [ $result = 0 ]; do
		mode lazy && usleep 20000 && mode eager || result=1
		n=$((n + 1))
		[ $((n % 10)) != 0 ] || echo "$n times"
	done
	unload
	echo "@out $n times"
	return $result
}

hotplug() {
	load
	n=0 result=0
	while [ $n -lt "$1" ] && [ $result = 0 ]; do
		echo 0 >/sys/devices/system/cpu/cpu1/online &&
			usleep 10000 && echo 1 >/sys/devices/system/cpu/cpu1/online &&
			usleep 10000 || result=1
		n=$((n + 1))
		[ $((n % 10)) != 0 ] || echo "$n times"
	done
	unload
	echo "@out $n times"
	return $result
}

# To idle. A byte on the serial line wakes it, the word says that there are no more of them.
suspend() {
	load
	echo enabled >/sys/class/tty/ttyS0/power/wakeup
	n=0 result=0
	while [ $n -lt "$1" ] && [ $result = 0 ]; do
		echo @sleep
		echo freeze >/sys/power/state || result=1
		echo @awake
		word=
		until [ "$word" = up ]; do read -r word; done
		usleep 20000
		n=$((n + 1))
		[ $((n % 10)) != 0 ] || echo "$n times"
	done
	unload
	echo "@out $n times"
	return $result
}

# Into the kernel that is running, with the files that are here. This ends here and begins
# anew: ready instead of done.
kexec() {
	(cd / && find . -xdev ! -path './tmp/*' | cpio -o -H newc) >/tmp/initrd 2>/dev/null || return
	load
	usleep 1000000
	/kexec /kernel /tmp/initrd "$(cat /proc/cmdline)"
	result=$?
	unload
	return $result
}

timers() {
	"/timers/$1" >/tmp/out 2>&1
	result=$?
	sed 's/^/@out /' /tmp/out
	return $result
}

cpus=$(grep -c ^processor /proc/cpuinfo)
echo "idle: $(cat /sys/devices/system/cpu/cpuidle/current_driver), clock: $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo "@ready $(uname -r) $cpus"
while read -r order arguments; do
	case $order in
	tcp | mode | modules | hotplug | suspend | kexec | timers) $order $arguments ;;
	hackbench) measure hackbench -g 1 -f 5 -l "$arguments" ;;
	# Without --default-system it would have an idle CPU poll, where that has a choice.
	cyclictest) measure cyclictest -q -m -t "$cpus" -a -p 80 -i 2000 -D "$arguments" --default-system ;;
	off) poweroff -f ;;
	*) false ;;
	esac
	echo "@done $?"
done
