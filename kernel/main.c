// SPDX-License-Identifier: MIT
/*
 * From the loader to the storm: every part of the machine is set up here, in the
 * order in which they need each other.
 */
#include "arch/x86/cpu.h"
#include "arch/x86/paging.h"
#include "arch/x86/trap.h"
#include "drivers/kvm.h"
#include "drivers/lapic.h"
#include "drivers/serial.h"
#include "drivers/tsc.h"
#include "kernel/banner.h"
#include "kernel/cmdline.h"
#include "kernel/console.h"
#include "kernel/cpu.h"
#include "kernel/panic.h"
#include "kernel/smp.h"
#include "kernel/storm/options.h"
#include "kernel/storm/storm.h"

#define PVH_STARTED	      0x336ec578 /* boot/start.asm */
#define MULTIBOOT_LOADED      0x2badb002
#define MULTIBOOT_HAS_CMDLINE (1u << 2)
#define MULTIBOOT_HAS_LOADER  (1u << 9)

/* The loader's information, Multiboot Specification 0.6.96, section 3.3. */
struct multiboot_info {
	uint32_t flags;
	uint32_t memory[2], boot_device;
	uint32_t cmdline;
	uint32_t modules[2], symbols[4], memory_map[2], drives[2], config;
	uint32_t loader;
};

/* Xen public/arch-x86/hvm/start_info.h: begins with PVH_STARTED. */
struct pvh_info {
	uint32_t magic, version, flags, modules;
	uint64_t module_list, cmdline, rsdp;
};

/* What both kinds of loader tell. */
static struct {
	const char *cmdline, *loader; /* NULL: not told */
	uint64_t rsdp;		      /* 0: not told */
} boot;

/*
 * boot/start.asm calls it with what a multiboot loader left in EAX and EBX, or with
 * PVH_STARTED and EBX.
 */
_Noreturn void kernel_main(uint32_t magic, const void *info);

static struct storm_options options;

static const char *pointer_if(bool valid, uint64_t address)
{
	return valid ? (const char *)(uintptr_t)address : NULL;
}

static void read_multiboot(const struct multiboot_info *info)
{
	boot.cmdline = pointer_if(info->flags & MULTIBOOT_HAS_CMDLINE,
				  info->cmdline);
	boot.loader = pointer_if(info->flags & MULTIBOOT_HAS_LOADER, info->loader);
}

static void read_pvh(const struct pvh_info *info)
{
	if (info->magic != PVH_STARTED)
		panic("not started by a PVH loader (%x)", info->magic);
	boot.cmdline = pointer_if(info->cmdline != 0, info->cmdline);
	boot.rsdp = info->rsdp;
}

/* A bad command line ends the run before it has begun. */
static void read_command_line(void)
{
	struct cmdline c;

	storm_options_begin(&options, &c);
	if (cmdline_line(&c, cmdline_skip_image(boot.cmdline, boot.loader)) == 0 &&
	    storm_options_end(&options, &c) == 0)
		return;
	print("%s\n", c.error);
	machine_end(EXIT_USAGE_CODE);
}

/* The LAPIC gave up an interrupt before its handler ran: there is no EOI. */
static void ignore_spurious(struct trap_frame *frame)
{
	(void)frame;
}

/* We sent or received something illegal: a fault of this kernel or its host. */
static void lapic_error(struct trap_frame *frame)
{
	(void)frame;
	panic("local APIC error, status %x", lapic_read_errors());
}

static void start_machine(void)
{
	trap_handle(VECTOR_SPURIOUS, ignore_spurious);
	trap_handle(VECTOR_ERROR, lapic_error);
	kvm_init();
	if (!tsc_init())
		panic("no way to find the frequency of the TSC");
	if (!lapic_init())
		panic("no working local APIC timer");
}

/* Without cpus= as many as the workloads can use. */
static void start_cpus(void)
{
	unsigned int wanted = options.cpus ? (unsigned int)options.cpus
					   : storm_cpus(&options);
	unsigned int running = smp_start(wanted, boot.rsdp,
					 options.pveoi == STORM_ON);

	irq_enable();
	if (!options.cpus || running == options.cpus)
		return;
	print("sloth: cpus=%u: this machine has %u\n", wanted, running);
	machine_end(EXIT_USAGE_CODE);
}

_Noreturn void kernel_main(uint32_t magic, const void *info)
{
	enum exit_code code;

	serial_init();
	paging_init();
	smp_first_cpu();
	panic_catch_exceptions();
	if (magic == MULTIBOOT_LOADED)
		read_multiboot(info);
	else if (magic == PVH_STARTED)
		read_pvh(info);
	else
		panic("not started by a multiboot or PVH loader (%x)", magic);
	read_command_line();
	start_machine();
	start_cpus();
	banner_print();
	code = storm_main(&options);
	debug_pause();
	if (options.end == STORM_END_EXIT)
		machine_end(code);
	print("sloth: halted\n");
	cpu_stop();
}
