#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds lazy_tscdeadline_test outside of the kernel tree.
#
#   build.sh LINUX-SOURCE OUTPUT [HEADERS]
#
# LINUX-SOURCE: unpacked linux-source, at least tools/testing/selftests/kvm,
# tools/testing/selftests/*.h, tools/include, tools/arch/x86/include and the uapi
# headers. HEADERS: a tree whose arch/x86/include/uapi/asm/kvm_para.h and
# include/uapi/linux/kvm_para.h have the series applied; default: LINUX-SOURCE.
set -eu

[ $# -ge 2 ] || { echo "usage: $0 LINUX-SOURCE OUTPUT [HEADERS]" >&2; exit 2; }
here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
source=$(CDPATH='' cd "$1" && pwd)
output=$2
headers=$(CDPATH='' cd "${3:-$1}" && pwd)
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
	for tree in "$headers" "$source"; do
		[ -f "$tree/$dir/$name" ] && break
	done
	sed -e 's/__user //' -e '/#include <linux\/compiler/d' \
		"$tree/$dir/$name" >"$work/uapi/$name"
done
grep -q LAZY_TSCDEADLINE "$work/uapi/asm/kvm_para.h" || {
	echo "$0: $headers: the series is not applied" >&2
	exit 1
}

flags="-Wall -Wstrict-prototypes -Wuninitialized -O2 -g -std=gnu99 -fno-stack-protector -fno-PIE
 -I$work/uapi -I$source/tools/include -I$source/tools/arch/x86/include -I$kvm/include
 -I$kvm/include/x86_64 -I$kvm/../rseq -I$kvm/.."
objects=
for file in lib/assert.c lib/elf.c lib/guest_modes.c lib/io.c lib/kvm_util.c lib/rbtree.c \
	lib/sparsebit.c lib/test_util.c lib/x86_64/apic.c lib/x86_64/handlers.S \
	lib/x86_64/processor.c lib/x86_64/ucall.c lib/string_override.c; do
	object=$work/$(echo "$file" | tr / _).o
	more=
	[ "$file" = lib/string_override.c ] && more=-ffreestanding
	# shellcheck disable=SC2086
	${CC:-gcc} $flags $more -c "$kvm/$file" -o "$object"
	objects="$objects $object"
done
# shellcheck disable=SC2086
${CC:-gcc} $flags -c "$here/lazy_tscdeadline_test.c" -o "$work/test.o"
# shellcheck disable=SC2086
${CC:-gcc} -no-pie -pthread "$work/test.o" $objects -o "$output"
