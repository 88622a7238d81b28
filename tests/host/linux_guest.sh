#!/bin/sh
# SPDX-License-Identifier: MIT
#
# First process of the Linux guest: a fixed amount of work, then power off.

export PATH=/bin
n=0
while [ $n -lt 50 ]; do
	usleep 10000
	n=$((n + 1))
done
mount -t devtmpfs dev /dev
dd if=/dev/zero of=/dev/null bs=64k count=200 2>/dev/null
n=0
while [ $n -lt 20000 ]; do
	n=$((n + 1))
done
echo "guest: done"
poweroff -f
