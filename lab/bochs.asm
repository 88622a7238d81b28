; SPDX-License-Identifier: MIT
;
; The boot sector of the host under Bochs: reads Linux and the initramfs from the disk to
; their places, and jumps to Linux' PVH entry. The kernel is already unpacked, and nothing
; passes through the BIOS' buffers: under emulation either takes longer than all the rest
; of the boot.
;
; What it reads first is the block that lab/bochs.py makes, the sectors behind this one:
;
;	u32 entry, u32 start_info                       both physical addresses
;	{u32 sector, u32 sectors, u32 address, u32 zeros} ...   up to one of no sectors
;	... struct hvm_start_info and what it points to
;
; `zeros` is how many bytes to clear behind what was read, a multiple of four. Sectors are
; read whole, so the loads come in the order of their addresses.

BLOCK         equ 0x8000
BLOCK_SECTORS equ 8
MAP           equ 0xa000                ; hvm_memmap_table_entry[], as start_info says
MAP_ENTRY     equ 24
START_INFO_REGIONS equ 48               ; offset of start_info's count of them

SMAP          equ 0x534d4150

ATA_DATA      equ 0x1f0
ATA_COUNT     equ 0x1f2                 ; then three bytes of the sector's number
ATA_DRIVE     equ 0x1f6
ATA_STATUS    equ 0x1f7                 ; written: the command
ATA_BUSY      equ 0x80
ATA_DATA_WAITS equ 0x08
ATA_ERROR     equ 0x01
ATA_READ      equ 0x20
MOST_SECTORS  equ 255                   ; in one command

org 0x7c00
bits 16

; In: what any PC's BIOS leaves, and nothing of it is relied on.
start:
	cli
	cld
	xor	ax, ax
	mov	ds, ax
	mov	es, ax
	mov	ss, ax
	mov	sp, start

	; The BIOS' memory map: its entries are those of PVH but for the last word.
	mov	di, MAP
	xor	ebx, ebx
.region:
	mov	dword [di + 20], 0
	mov	eax, 0xe820
	mov	edx, SMAP
	mov	ecx, 20
	int	0x15
	jc	.protect
	cmp	eax, SMAP
	jne	.protect
	add	di, MAP_ENTRY
	inc	dword [regions]
	test	ebx, ebx
	jnz	.region

.protect:
	in	al, 0x92
	or	al, 2                   ; A20
	out	0x92, al
	lgdt	[gdtr]
	mov	eax, cr0
	or	al, 1
	mov	cr0, eax
	jmp	8:flat

bits 32
flat:
	mov	ax, 16
	mov	ds, ax
	mov	es, ax
	mov	ss, ax
	mov	esp, start
	mov	ebp, load_block
	call	load
	mov	ebp, BLOCK + 8
.next:
	cmp	dword [ebp + 4], 0
	je	.enter
	call	load
	add	ebp, 16
	jmp	.next

; Linux' PVH entry: protected mode, flat segments, no paging, ebx = start_info.
.enter:
	mov	ebx, [BLOCK + 4]
	mov	eax, [regions]
	mov	[ebx + START_INFO_REGIONS], eax
	jmp	[BLOCK]

; In: ebp = one load. Changes all registers but ebp and esp.
load:
	mov	ebx, [ebp]              ; the next sector
	mov	esi, [ebp + 4]          ; how many are left
	mov	edi, [ebp + 8]
.command:
	call	wait_until_ready
	mov	ecx, MOST_SECTORS
	cmp	esi, ecx
	jae	.start
	mov	ecx, esi
.start:
	mov	dx, ATA_COUNT
	mov	al, cl
	out	dx, al
	mov	eax, ebx
	inc	dx
	out	dx, al
	shr	eax, 8
	inc	dx
	out	dx, al
	shr	eax, 8
	inc	dx
	out	dx, al
	mov	al, 0xe0                ; master, sectors by number
	mov	dx, ATA_DRIVE
	out	dx, al
	mov	al, ATA_READ
	mov	dx, ATA_STATUS
	out	dx, al
	sub	esi, ecx
	add	ebx, ecx
.sector:
	call	wait_until_ready
	test	al, ATA_ERROR
	jnz	stop
	test	al, ATA_DATA_WAITS
	jz	.sector
	push	ecx
	mov	dx, ATA_DATA
	mov	ecx, 512 / 2
	rep	insw
	pop	ecx
	loop	.sector
	test	esi, esi
	jnz	.command
	mov	ecx, [ebp + 12]
	shr	ecx, 2
	xor	eax, eax
	rep	stosd
	ret

; Out: al = status. Changes edx.
wait_until_ready:
	mov	dx, ATA_STATUS
.again:
	in	al, dx
	test	al, ATA_BUSY
	jnz	.again
	ret

; A triple fault: there is no IDT. Bochs ends and says so.
stop:
	ud2

align 8
gdt:
	dq 0
	dq 0x00cf9b000000ffff           ; code: 4 GiB, 32 bits
	dq 0x00cf93000000ffff           ; data
gdtr:
	dw gdtr - gdt - 1
	dd gdt
load_block:
	dd 1, BLOCK_SECTORS, BLOCK, 0
regions:
	dd 0

	times 510 - ($ - $$) db 0
	dw 0xaa55
