; SPDX-License-Identifier: MIT
;
; Interrupt and exception stubs, one line each.
;
; The CPU jumps to trap_stub_N through the IDT with interrupts off, having
; pushed SS, RSP, RFLAGS, CS, RIP and, for some exceptions, an error code. The
; stub makes the frame equal for all (0 where the CPU gives no error code),
; pushes the vector and saves every general register: that is struct trap_frame
; in trap.h. Then it calls trap_entry(frame) in trap.c and, when that returns,
; puts everything back and resumes. The kernel is compiled without SSE, so there
; is nothing else to save.
;
; trap_stubs is the table that trap.c builds the IDT from: vector, address.

	bits 64
	section .text
	extern trap_entry

%macro STUB 2				; vector, does the CPU push an error code
trap_stub_%1:
%if %2 == 0
	push	qword 0
%endif
	push	qword %1
	jmp	trap_common
	section .rodata
	dq	%1, trap_stub_%1
	section .text
%endmacro

	section .rodata
	align 8
	global trap_stubs
	global trap_stubs_end
trap_stubs:
	section .text

	STUB 0, 0			; #DE divide error
	STUB 1, 0			; #DB debug
	STUB 2, 0			; NMI
	STUB 3, 0			; #BP breakpoint
	STUB 4, 0			; #OF overflow
	STUB 5, 0			; #BR bound range
	STUB 6, 0			; #UD invalid opcode
	STUB 7, 0			; #NM no coprocessor
	STUB 8, 1			; #DF double fault
	STUB 9, 0			; coprocessor overrun
	STUB 10, 1			; #TS invalid TSS
	STUB 11, 1			; #NP segment not present
	STUB 12, 1			; #SS stack
	STUB 13, 1			; #GP general protection
	STUB 14, 1			; #PF page fault
	STUB 15, 0			; reserved
	STUB 16, 0			; #MF x87
	STUB 17, 1			; #AC alignment
	STUB 18, 0			; #MC machine check
	STUB 19, 0			; #XM SIMD
	STUB 20, 0			; #VE virtualisation
	STUB 21, 1			; #CP control protection
	STUB 22, 0			; reserved
	STUB 23, 0			; reserved
	STUB 24, 0			; reserved
	STUB 25, 0			; reserved
	STUB 26, 0			; reserved
	STUB 27, 0			; reserved
	STUB 28, 0			; #HV hypervisor injection
	STUB 29, 1			; #VC VMM communication
	STUB 30, 1			; #SX security
	STUB 31, 0			; reserved
	STUB 0x40, 0			; local APIC timer
	STUB 0x41, 0			; wake-up by another CPU
	STUB 0xfe, 0			; local APIC error
	STUB 0xff, 0			; local APIC spurious

	section .rodata
trap_stubs_end:

	section .text
trap_common:
	push	rax
	push	rbx
	push	rcx
	push	rdx
	push	rsi
	push	rdi
	push	rbp
	push	r8
	push	r9
	push	r10
	push	r11
	push	r12
	push	r13
	push	r14
	push	r15
	cld
	mov	rdi, rsp
	mov	rbx, rsp		; RBX survives the call
	and	rsp, -16		; the ABI wants 16 bytes, #DF may not give it
	call	trap_entry
	mov	rsp, rbx
	pop	r15
	pop	r14
	pop	r13
	pop	r12
	pop	r11
	pop	r10
	pop	r9
	pop	r8
	pop	rbp
	pop	rdi
	pop	rsi
	pop	rdx
	pop	rcx
	pop	rbx
	pop	rax
	add	rsp, 16			; vector and error code
	iretq

; void cpu_wait(void)
; Declared in cpu.h. Nothing may be interrupted between STI and HLT, or the CPU
; sleeps after the interrupt that it waited for. QEMU before 9.1 forgets the
; shadow of STI when its software SVM exits right behind it, and KVM then injects
; the interrupt at the HLT. So trap_entry() in trap.c lets an interrupt that
; comes at cpu_wait_hlt return behind the HLT. On a CPU that keeps the shadow, none
; but an NMI ever does.
	global cpu_wait
	global cpu_wait_hlt
cpu_wait:
	sti
cpu_wait_hlt:
	hlt
	cli
	ret

; void load_tables(const void *gdt, const void *idt, uint16_t tss)
; GDT and IDT as the ten bytes that LGDT and LIDT want. Reloads CS with 0x08,
; the data segments with 0x10. Called by trap_init() with interrupts off.
	global load_tables
load_tables:
	lgdt	[rdi]
	lidt	[rsi]
	mov	eax, 0x10
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	ltr	dx
	pop	rax
	push	qword 0x08
	push	rax
	o64 retf
