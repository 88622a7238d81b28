#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds lazy_tscdeadline_test out of the kernel's own tree.
#
#   build.sh LINUX-SOURCE OUTPUT [TEST.c]
#
# LINUX-SOURCE: linux-source with the series applied; of it at least
# tools/testing/selftests/kvm, tools/testing/selftests/*.h, tools/include,
# tools/arch/x86/include, and the uapi headers that the series changes.
# TEST.c: another test than the one that the series brings.
set -eu

[ $# -ge 2 ] || { echo "usage: $0 LINUX-SOURCE OUTPUT [TEST.c]" >&2; exit 2; }
source=$(CDPATH='' cd "$1" && pwd)
output=$2
kvm=$source/tools/testing/selftests/kvm
test=${3:-$kvm/x86_64/lazy_tscdeadline_test.c}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The patched headers as userspace sees them, in place of the system's.
mkdir -p "$work/uapi/asm" "$work/uapi/linux"
for name in asm/kvm_para.h asm/kvm.h linux/kvm_para.h linux/kvm.h; do
	case $name in
	asm/*) dir=arch/x86/include/uapi ;;
	*) dir=include/uapi ;;
	esac
	sed -e 's/__user //' -e '/#include <linux\/compiler/d' \
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
for file in "$kvm"/lib/*.c "$kvm"/lib/x86_64/*.[cS]; do
	more=
	case $file in
	*/rbtree.c) more=-I$source/tools/lib ;;
	*/string_override.c) more=-ffreestanding ;;
	esac
	# shellcheck disable=SC2086
	${CC:-gcc} $flags $more -w -c "$file" -o "$work/$(echo "${file#"$kvm"/}" | tr / _).o"
done
ar rcs "$work/libkvm.a" "$work"/*.o
# shellcheck disable=SC2086
${CC:-gcc} $flags -c "$test" -o "$work/test.o"
# string_override.c has to win over the C library.
${CC:-gcc} -no-pie -pthread "$work/test.o" "$work"/lib_string_override.c.o \
	"$work/libkvm.a" -o "$output"
