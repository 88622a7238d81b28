; SPDX-License-Identifier: MIT
;
; The multiboot header, the PVH note, and the way from the loader to C.
;
; boot_entry: a multiboot 1 loader (QEMU's -kernel, GRUB) jumps here with
; EAX = 0x2badb002, EBX = physical address of its information structure, 32-bit
; protected mode with flat segments, paging and interrupts off, no stack
; (Multiboot Specification 0.6.96, section 3.2). .bss is zero: both loaders see
; to that.
;
; pvh_entry: a PVH loader (QEMU's microvm, Firecracker, Xen) jumps here in the same
; state, but with EBX = physical address of struct hvm_start_info, and EAX undefined
; (Xen docs/misc/pvh.pandoc). The note tells it where.
;
; It identity-maps the first 4 GiB with 2 MiB pages, turns on long mode and
; calls kernel_main(magic, info) in kernel/main.c on CPU 0's stack. There
; arch/x86/paging.c takes from the pages what they need not allow. kernel_main does
; not return.

MB_MAGIC	equ 0x1badb002
MB_FLAGS	equ 0x00000003		; align modules, tell memory size

XEN_PHYS32_ENTRY equ 18
PVH_STARTED	equ 0x336ec578		; as the structure begins, for kernel_main

PTE_PRESENT	equ 1 << 0
PTE_WRITE	equ 1 << 1
PTE_PWT		equ 1 << 3
PTE_PCD		equ 1 << 4
PTE_LARGE	equ 1 << 7

CR0_WP		equ 1 << 16
CR0_PG		equ 1 << 31
CR4_PAE		equ 1 << 5
MSR_EFER	equ 0xc0000080
EFER_LME	equ 1 << 8
EFER_NXE	equ 1 << 11
CPUID_NX_LM	equ 1 << 20 | 1 << 29

EBDA_SEGMENT	equ 0x40e		; the BIOS' word: the EBDA's address / 16
STACKS_SIZE	equ 0x9000		; sizeof(struct stacks), kernel/smp.c

COM1		equ 0x3f8
DEBUG_EXIT	equ 0xf4
EXIT_PANIC	equ 0x12		; as in drivers/debug_exit.h

	section .multiboot align=4
	dd MB_MAGIC, MB_FLAGS, -(MB_MAGIC + MB_FLAGS)

	section .note.pvh note alloc noexec nowrite align=4
	dd 4, 4, XEN_PHYS32_ENTRY	; lengths of name and value, type
	db "Xen", 0
	dd pvh_entry

	section .text
	bits 32
	global boot_entry
	global enter_long_mode
	global pml4
	global page_dirs
	global boot_gdt
	global bios_ebda
	extern kernel_main
	extern stacks

pvh_entry:
	mov	eax, PVH_STARTED
boot_entry:
	cli
	cld
	mov	esp, stacks + STACKS_SIZE
	mov	edi, eax		; both first arguments of kernel_main,
	mov	esi, ebx		; kept from here to the call
	call	has_long_mode
	jne	no_long_mode
	mov	ax, [EBDA_SEGMENT]	; its page is not mapped later
	mov	[bios_ebda], ax
	call	map_low_4g
	call	enter_long_mode
	lgdt	[boot_gdt_pointer]
	jmp	0x08:in_64_bits

; Returns ZF set if the CPU has long mode and pages that are not to be executed:
; CPUID 0x80000001 EDX bits 29 and 20 (AMD APM vol 3, appendix E). A CPU without
; CPUID is older than any we meet. Clobbers EAX, EBX, ECX, EDX.
has_long_mode:
	mov	eax, 0x80000000
	cpuid
	xor	edx, edx
	cmp	eax, 0x80000001
	jb	.no
	mov	eax, 0x80000001
	cpuid
.no:	and	edx, CPUID_NX_LM
	cmp	edx, CPUID_NX_LM
	ret

; Turns on paging, by the one set of tables, and with it long mode, compatibility
; sub-mode; from then on what is read-only and what is not code is so for this
; kernel too. Each CPU calls it, the others from boot/ap.asm.
; Clobbers EAX, ECX, EDX.
enter_long_mode:
	mov	eax, pml4
	mov	cr3, eax
	mov	eax, cr4
	or	eax, CR4_PAE
	mov	cr4, eax
	mov	ecx, MSR_EFER
	rdmsr
	or	eax, EFER_LME | EFER_NXE
	wrmsr
	mov	eax, cr0
	or	eax, CR0_PG | CR0_WP
	mov	cr0, eax
	ret

; Fills one PML4, one PDPT and four page directories. The last GiB holds device
; registers (the xAPIC at 0xfee00000) and is mapped uncached.
; Clobbers EAX, EBX, ECX.
map_low_4g:
	mov	dword [pml4], pdpt + (PTE_PRESENT | PTE_WRITE)
	mov	eax, page_dirs + (PTE_PRESENT | PTE_WRITE)
	xor	ecx, ecx
.pdpt:	mov	[pdpt + ecx * 8], eax
	add	eax, 4096
	inc	ecx
	cmp	ecx, 4
	jb	.pdpt

	xor	ecx, ecx
.pde:	mov	eax, ecx
	shl	eax, 21
	or	eax, PTE_PRESENT | PTE_WRITE | PTE_LARGE
	cmp	ecx, 3 * 512
	jb	.ram
	or	eax, PTE_PCD | PTE_PWT
.ram:	mov	[page_dirs + ecx * 8], eax
	inc	ecx
	cmp	ecx, 4 * 512
	jb	.pde
	ret

; Says so on the serial port and ends the machine, or halts it.
no_long_mode:
	mov	esi, no_long_mode_text
	mov	edx, COM1
.next:	lodsb
	test	al, al
	jz	.end
	out	dx, al
	jmp	.next
.end:	mov	eax, EXIT_PANIC
	out	DEBUG_EXIT, eax
.halt:	cli
	hlt
	jmp	.halt

	bits 64
in_64_bits:
	mov	eax, 0x10
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	xor	eax, eax
	mov	fs, eax
	mov	gs, eax
	mov	rsp, stacks + STACKS_SIZE
	xor	ebp, ebp
	mov	edi, edi		; clear what long mode leaves undefined
	mov	esi, esi		; in the upper halves
	call	kernel_main
	ud2

	section .rodata
no_long_mode_text:
	db "sloth: this CPU has no 64-bit mode, or no NX bit in it", 10, 0

	align 8
boot_gdt:
	dq 0
	dq 0x00209a0000000000		; 0x08: 64-bit code
	dq 0x00cf92000000ffff		; 0x10: data
	dq 0x00cf9a000000ffff		; 0x18: 32-bit code
boot_gdt_pointer:
	dw $ - boot_gdt - 1
	dq boot_gdt

	section .bss nobits alloc write align=4096
pml4:	resb 4096
pdpt:	resb 4096
page_dirs:
	resb 4 * 4096
bios_ebda:
	resw 1
