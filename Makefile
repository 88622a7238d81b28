# SPDX-License-Identifier: MIT
#
# make                  build/sloth.elf, the guest image
# make iso              build/sloth.iso, the same with GRUB
# make unit             build/unit/*, hosted tests
# make build/storm-args the option checker
# make fuzz             build/fuzz_hrtimer, the fuzzer of the timer wheel (clang)
# make clean            removes what the above made, and nothing else
#
# Everything else under build/ belongs to the lab.

.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# make V=1 shows the commands.
ifneq ($(V),1)
say = @echo "  $(1)	$@";
endif

OUT   := build/guest
CC    := gcc
NASM  := nasm
WARN  := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes

# No SSE: the interrupt stubs save general registers only. No red zone: they
# push on the interrupted stack. The image lies below 2 GiB and does not move.
CFLAGS := -std=c17 -O2 -g $(WARN) -I. -MMD -MP -ffreestanding -fno-builtin \
	-fno-stack-protector -fno-pic -fno-pie -mcmodel=small -mno-red-zone \
	-mgeneral-regs-only -fno-asynchronous-unwind-tables -fcf-protection=none \
	-fno-tree-loop-distribute-patterns -fno-strict-aliasing -fstack-usage
LDFLAGS := -nostdlib -static -no-pie -Wl,-T,linker.ld -Wl,--build-id=none \
	-Wl,-z,max-page-size=0x1000 -Wl,-z,noexecstack

HOSTED_ONLY := kernel/hrtimer_check.c kernel/storm/args.c
C_SOURCES   := $(filter-out $(HOSTED_ONLY),$(wildcard arch/x86/*.c drivers/*.c \
	kernel/*.c kernel/storm/*.c))
ASM_SOURCES := boot/start.asm boot/ap.asm arch/x86/entry.asm
OBJECTS     := $(ASM_SOURCES:%.asm=$(OUT)/%.asm.o) $(C_SOURCES:%.c=$(OUT)/%.o)

.PHONY: all iso unit fuzz clean
all: build/sloth.elf

# QEMU's -kernel takes multiboot images as 32-bit ELF only.
build/sloth.elf: build/sloth64.elf
	$(call say,OBJCOPY) objcopy -O elf32-i386 --strip-debug $< $@

build/sloth64.elf: $(OBJECTS) linker.ld Makefile
	$(call say,LD) $(CC) $(LDFLAGS) -o $@ $(OBJECTS)

$(OUT)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC) $(CC) $(CFLAGS) -c -o $@ $<

# An image that does not move is full of absolute relocations, of which a newer NASM
# warns; an older one does not know that warning.
NASMFLAGS := -f elf64 -g -F dwarf -Wall -Wno-unknown-warning -Wno-reloc -Werror
$(OUT)/%.asm.o: %.asm Makefile
	@mkdir -p $(@D)
	$(call say,NASM) $(NASM) $(NASMFLAGS) -o $@ $<

iso: build/sloth.iso
build/sloth.iso: build/sloth.elf boot/grub.cfg
	@mkdir -p $(OUT)/iso/boot/grub
	@cp build/sloth.elf $(OUT)/iso/boot/sloth.elf
	@cp boot/grub.cfg $(OUT)/iso/boot/grub/grub.cfg
	$(call say,GRUB) grub-mkrescue -o $@ $(OUT)/iso >$(OUT)/grub-mkrescue.log 2>&1 || \
		{ cat $(OUT)/grub-mkrescue.log >&2; exit 1; }

# Hosted: the guest's own files, compiled for the machine that builds. The fake
# CPU of tests/unit stands first, so that drivers find it in place of the real.
# Few and small: a changed header, or hrtimer.c behind its checker, rebuilds all.
HOSTED := -std=gnu17 -O1 -g $(WARN) -Itests/unit/fake -I. \
	-fsanitize=address,undefined -fno-sanitize-recover=all -DHRTIMER_CHECK

HOSTED_NEEDS := Makefile kernel/hrtimer.c $(wildcard drivers/*.h kernel/*.h \
	kernel/storm/*.h tests/unit/*.h tests/unit/fake/*/*/*.h)

UNIT_hrtimer   := kernel/hrtimer_check.c
UNIT_forward   := kernel/hrtimer_check.c
UNIT_clockevent := kernel/clockevent.c kernel/idle.c kernel/histogram.c \
	drivers/deadline_eager.c kernel/hrtimer_check.c
UNIT_fuzz      := tests/fuzz/fuzz_hrtimer.c kernel/hrtimer_check.c
UNIT_cmdline   := kernel/cmdline.c kernel/print.c kernel/storm/options.c
UNIT_print     := kernel/print.c
UNIT_histogram := kernel/histogram.c
UNIT_scale     :=
UNIT_deadline  := drivers/deadline_eager.c drivers/deadline_rearm.c \
	drivers/deadline_lazy.c
UNIT_TESTS     := $(patsubst tests/unit/test_%.c,%,$(wildcard tests/unit/test_*.c))

UNIT := build/unit
unit: $(UNIT_TESTS:%=$(UNIT)/test_%)

define UNIT_RULE
$(UNIT)/test_$(1): tests/unit/test_$(1).c $(UNIT_$(1)) $(HOSTED_NEEDS)
	@mkdir -p $$(@D)
	$$(call say,CC) $(CC) $(HOSTED) -o $$@ tests/unit/test_$(1).c $(UNIT_$(1)) -lcmocka
endef
$(foreach t,$(UNIT_TESTS),$(eval $(call UNIT_RULE,$(t))))

ARGS_SOURCES := kernel/storm/args.c kernel/storm/options.c kernel/cmdline.c \
	kernel/print.c
build/storm-args: $(ARGS_SOURCES) $(HOSTED_NEEDS)
	@mkdir -p $(@D)
	$(call say,CC) $(CC) -std=gnu17 -O1 $(WARN) -I. -o $@ $(ARGS_SOURCES)

# build/fuzz_hrtimer -max_total_time=600 build/corpus tests/fuzz/corpus
FUZZ_SOURCES := tests/fuzz/fuzz_hrtimer.c kernel/hrtimer_check.c
fuzz: build/fuzz_hrtimer
build/fuzz_hrtimer: $(FUZZ_SOURCES) $(HOSTED_NEEDS)
	@mkdir -p build/corpus
	$(call say,CLANG) clang -std=gnu17 -O1 -g $(WARN) -I. -DHRTIMER_CHECK \
		-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
		-o $@ $(FUZZ_SOURCES)

clean:
	rm -rf $(OUT) build/unit build/fuzz_hrtimer build/storm-args build/sloth.elf \
		build/sloth64.elf build/sloth.iso

-include $(wildcard $(OUT)/*/*.d $(OUT)/*/*/*.d)
