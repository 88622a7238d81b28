#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds tests against the library of tools/testing/selftests/kvm, out of the kernel's own tree.
#
#   build.sh LINUX-SOURCE DIRECTORY TEST...
#
# LINUX-SOURCE: linux-source with the series applied; of it at least
# tools/testing/selftests/kvm, tools/testing/selftests/*.h, tools/include,
# tools/arch/x86/include, and the uapi headers that the series changes.
# TEST: a file's name, which ends in .c and is compiled with all warnings on, or a name as in the
# kernel's Makefile, x86_64/state_test. Those of the latter that the tree lacks are passed
# over. DIRECTORY exists; a test has there the last part of its name.
set -eu

[ $# -ge 3 ] || { echo "usage: $0 LINUX-SOURCE DIRECTORY TEST..." >&2; exit 2; }
source=$(CDPATH='' cd "$1" && pwd)
output=$2
shift 2
kvm=$source/tools/testing/selftests/kvm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The patched headers as userspace sees them, in place of the system's.
mkdir -p "$work/uapi/asm" "$work/uapi/linux"
for name in asm/kvm_para.h asm/kvm.h linux/kvm_para.h linux/kvm.h; do
	case $name in
	asm/*) dir=arch/x86/include/uapi ;;
	*) dir=include/uapi ;;
	esac
	# 6.1's asm/kvm.h relies on <linux/types.h> for stddef.h, and the tools have another.
	sed -e 's/__user //' -e '/#include <linux\/compiler/d' \
		-e 's,#include <linux/ioctl.h>,&\n#include <linux/stddef.h>,' \
		"$source/$dir/$name" >"$work/uapi/$name"
done
grep -q LAZY_TSCDEADLINE "$work/uapi/asm/kvm_para.h" || {
	echo "$0: $source: the series is not applied" >&2
	exit 1
}

# The library as an archive: what the test does not use need not link.
flags="-Wall -Wstrict-prototypes -Wuninitialized -O2 -g -std=gnu99 -D_GNU_SOURCE=
 -U_FORTIFY_SOURCE -fno-builtin-memcmp -fno-builtin-memcpy -fno-builtin-memset
 -fno-builtin-strnlen -fno-stack-protector -fno-PIE -fno-strict-aliasing
 -I$work/uapi -I$source/tools/include -I$source/tools/arch/x86/include -I$kvm/include
 -I$kvm/include/x86_64 -I$kvm/../rseq -I$kvm/.."
# 6.1.y took a fix of dirty_log_test.c that calls it by its later name.
grep -q TEST_ASSERT_EQ "$kvm/include/test_util.h" || flags="$flags -DTEST_ASSERT_EQ=ASSERT_EQ"
for file in "$kvm"/lib/*.c "$kvm"/lib/x86_64/*.[cS]; do
	more=
	case $file in
	*/rbtree.c) more=-I$source/tools/lib ;;
	*/string_override.c) more=-ffreestanding ;;
	esac
	echo "$more -w -c $file -o $work/$(echo "${file#"$kvm"/}" | tr / _).o"
done >"$work/objects"
mkdir "$work/tests"
for name; do
	case $name in
	*.c) echo "-c $name -o $work/tests/$(basename "$name" .c).o" ;;
	*) [ ! -f "$kvm/$name.c" ] || echo "-w -c $kvm/$name.c -o $work/tests/${name##*/}.o" ;;
	esac
done >>"$work/objects"
# shellcheck disable=SC2086
xargs -P "$(nproc)" -L 1 ${CC:-gcc} $flags <"$work/objects"
ar rcs "$work/libkvm.a" "$work"/*.o
# string_override.c has to win over the C library.
for object in "$work"/tests/*.o; do
	name=${object##*/}
	${CC:-gcc} -no-pie -pthread "$object" "$work"/lib_string_override.c.o \
		"$work/libkvm.a" -o "$output/${name%.o}"
done
