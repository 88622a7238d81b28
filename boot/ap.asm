; SPDX-License-Identifier: MIT
;
; Where every CPU but the first begins.
;
; ap_trampoline up to ap_trampoline_end is copied to AP_PAGE (kernel/smp.c). A
; start-up IPI makes the CPU begin there: real mode, CS = AP_PAGE / 16, IP = 0,
; interrupts off, caches off (Intel SDM vol 3, table 9-1). It goes straight to
; long mode, with the first CPU's page tables, and calls smp_ap_main(ap_cpu) on
; ap_stack. Both are set by who started it, one CPU at a time. smp_ap_main does not
; return.

AP_PAGE		equ 0x8000		; as in kernel/smp.c

CR0_PE		equ 1 << 0
CR0_ET		equ 1 << 4
CR0_PG		equ 1 << 31
CR4_PAE		equ 1 << 5
MSR_EFER	equ 0xc0000080
EFER_LME	equ 1 << 8

	extern pml4
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
	mov	eax, CR4_PAE
	mov	cr4, eax
	mov	eax, pml4
	mov	cr3, eax
	mov	ecx, MSR_EFER
	rdmsr
	or	eax, EFER_LME
	wrmsr
	mov	eax, CR0_PG | CR0_ET | CR0_PE	; CD and NW off: caches on
	mov	cr0, eax		; real mode to long mode in one step
	jmp	dword 0x08:ap_in_64_bits
gdt_pointer:
	dw	3 * 8 - 1
	dd	boot_gdt
ap_trampoline_end:

	section .text
	bits 64
ap_in_64_bits:
	mov	eax, 0x10
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
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
