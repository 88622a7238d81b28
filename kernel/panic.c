// SPDX-License-Identifier: MIT
/*
 * Last words: the end of the run, panic and the report of an exception.
 */
#include "kernel/panic.h"

#include <stdatomic.h>

#include "arch/x86/cpu.h"
#include "arch/x86/paging.h"
#include "arch/x86/trap.h"
#include "kernel/clockevent.h"
#include "kernel/console.h"
#include "kernel/print.h"
#include "kernel/smp.h"

static const char *const exception_names[TRAP_EXCEPTIONS] = {
	[0] = "#DE divide error",
	[1] = "#DB debug",
	[2] = "NMI",
	[3] = "#BP breakpoint",
	[4] = "#OF overflow",
	[5] = "#BR bound range exceeded",
	[6] = "#UD invalid opcode",
	[7] = "#NM device not available",
	[8] = "#DF double fault",
	[10] = "#TS invalid TSS",
	[11] = "#NP segment not present",
	[12] = "#SS stack segment fault",
	[13] = "#GP general protection",
	[14] = "#PF page fault",
	[16] = "#MF x87 floating point",
	[17] = "#AC alignment check",
	[18] = "#MC machine check",
	[19] = "#XM SIMD floating point",
	[20] = "#VE virtualisation",
	[21] = "#CP control protection",
	[28] = "#HV hypervisor injection",
	[29] = "#VC VMM communication",
	[30] = "#SX security",
};

_Noreturn void machine_end(enum exit_code code)
{
	irq_disable();
	clockevent_off();
	console_flush();
	debug_exit(code);
	print("sloth: halted\n");
	cpu_stop();
}

static _Atomic bool panicking;

_Noreturn void panic(const char *format, ...)
{
	char text[200];
	va_list args;

	irq_disable();
	if (atomic_exchange(&panicking, true)) /* or the panic itself went wrong */
		cpu_stop();
	smp_stop_others();
	va_start(args, format);
	print_va(text, sizeof(text), format, args);
	va_end(args);
	print("\nPANIC: %s\n", text);
	machine_end(EXIT_PANIC_CODE);
}

bool panic_has_begun(void)
{
	return panicking;
}

static uint64_t read_cr2(void)
{
	uint64_t value;

	__asm__ volatile("movq %%cr2, %0" : "=r"(value));
	return value;
}

static void print_registers(const struct trap_frame *f)
{
	const struct {
		const char *name;
		uint64_t value;
	} registers[] = {
		{ "rax", f->rax }, { "rbx", f->rbx }, { "rcx", f->rcx },
		{ "rdx", f->rdx }, { "rsi", f->rsi }, { "rdi", f->rdi },
		{ "rbp", f->rbp }, { "rsp", f->rsp }, { "r8 ", f->r8 },
		{ "r9 ", f->r9 },  { "r10", f->r10 }, { "r11", f->r11 },
		{ "r12", f->r12 }, { "r13", f->r13 }, { "r14", f->r14 },
		{ "r15", f->r15 }, { "rip", f->rip }, { "flg", f->rflags },
		{ "cs ", f->cs },  { "ss ", f->ss },  { "cr2", read_cr2() },
	};
	const unsigned int count = sizeof(registers) / sizeof(*registers);

	for (unsigned int i = 0; i < count; i++)
		print("  %s %016lx%s", registers[i].name, registers[i].value,
		      i % 3 == 2 ? "\n" : "");
}

static void report_exception(struct trap_frame *frame)
{
	const char *name = exception_names[frame->vector];
	const char *why = "";

	if (panicking && frame->vector == VECTOR_NMI)
		cpu_stop(); /* another CPU's panic */
	if (frame->vector == VECTOR_PAGE_FAULT)
		why = paging_fault(frame->error, read_cr2());
	print("\nexception %lu (%s%s), error code %lx\n", frame->vector,
	      name ? name : "reserved", why, frame->error);
	print_registers(frame);
	panic("exception %lu (%s%s) at %016lx", frame->vector,
	      name ? name : "reserved", why, frame->rip);
}

void panic_catch_exceptions(void)
{
	for (unsigned int i = 0; i < TRAP_EXCEPTIONS; i++)
		trap_handle(i, report_exception);
}
