; SPDX-License-Identifier: MIT
;
; Where every CPU but the first begins.
;
; ap_trampoline up to ap_trampoline_end is copied to AP_PAGE (kernel/smp.c). A
; start-up IPI makes the CPU begin there: real mode, CS = AP_PAGE / 16, IP = 0,
; interrupts off, caches off (Intel SDM vol 3, table 10-1). It leaves AP_PAGE, which
; is no code for the page tables, enters long mode as the first CPU did, and calls
; smp_ap_main(ap_cpu) on ap_stack. Both are set by who started it, one CPU at a time.
; smp_ap_main does not return.

AP_PAGE		equ 0x8000		; as in kernel/smp.c

CR0_PE		equ 1 << 0
CR0_ET		equ 1 << 4

	extern enter_long_mode
	extern boot_gdt
	extern smp_ap_main

	section .rodata
	bits 16
	global ap_trampoline
	global ap_trampoline_end
ap_trampoline:
	cli
	cld
	xor	ax, ax
	mov	ds, ax
	o32 lgdt [AP_PAGE + gdt_pointer - ap_trampoline]
	mov	eax, CR0_ET | CR0_PE	; CD and NW off: caches on
	mov	cr0, eax
	jmp	dword 0x18:ap_in_32_bits
gdt_pointer:
	dw	4 * 8 - 1
	dd	boot_gdt
ap_trampoline_end:

	section .text
	bits 32
ap_in_32_bits:
	mov	eax, 0x10
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	mov	esp, [ap_stack]
	call	enter_long_mode
	jmp	0x08:ap_in_64_bits

	bits 64
ap_in_64_bits:
	xor	eax, eax
	mov	fs, eax
	mov	gs, eax
	mov	rsp, [ap_stack]
	mov	rdi, [ap_cpu]
	xor	ebp, ebp
	call	smp_ap_main
	ud2

	section .bss nobits alloc write align=8
	global ap_stack
	global ap_cpu
ap_stack:
	resq	1
ap_cpu:	resq	1
