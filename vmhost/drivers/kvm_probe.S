# The guest of the KVM probe: a boot sector that does what every kernel does first, and says so only if all of it works.
#
#   1. real mode -> protected -> long mode with paging (as the boot code of Linux does)
#   2. CPUID; model-specific registers written and read back (EFER, FS base, LSTAR)
#   3. user mode and back (SYSRET, SYSCALL)
#   4. the local APIC's timer wakes the CPU from HLT by an interrupt
#
# Then it writes 0x2a to the isa-debug-exit device at port 0xf4, and QEMU ends with exit code 0x2a * 2 + 1 = 85.
# Anything else that happens is another exit code, a hang or a crash of QEMU.
#
# as kvm_probe.S -o probe.o && ld --oformat binary -Ttext 0x7c00 probe.o -o probe.bin

        .intel_syntax noprefix
        .globl _start
        .set   PML4, 0x1000
        .set   PDPT, 0x2000
        .set   LOW, 0x3000              # page directory of the first GiB
        .set   HIGH, 0x4000             # page directory of the fourth GiB, where the local APIC is
        .set   IDT, 0x5000
        .set   APIC, 0xfee00000
        .set   VECTOR, 0x40
        .set   MARK, 0x5a5a1234

        .code16
_start: cli
        cld
        xor    ax, ax
        mov    ds, ax
        mov    es, ax
        mov    ss, ax
        mov    sp, 0x7c00
        mov    di, PML4
        mov    cx, 0x5000
        rep    stosb                    # tables and IDT: all zeros
        mov    word ptr [PML4], PDPT + 7
        mov    word ptr [PDPT], LOW + 7
        mov    word ptr [PDPT + 3 * 8], HIGH + 7
        mov    word ptr [LOW], 0x87     # 2 MiB at 0: present, writable, user
        mov    dword ptr [HIGH + 503 * 8], APIC + 0x9b
        mov    word ptr [IDT + VECTOR * 16], offset timer
        mov    dword ptr [IDT + VECTOR * 16 + 2], 0x8e000008
        lgdt   [gdtr]
        lidt   [idtr]
        mov    eax, cr4
        or     al, 0x20                 # PAE
        mov    cr4, eax
        mov    eax, PML4
        mov    cr3, eax
        mov    ecx, 0xc0000080          # EFER: long mode, SYSCALL
        rdmsr
        or     ax, 0x101
        wrmsr
        mov    eax, cr0
        or     eax, 0x80000001          # paging, protection
        mov    cr0, eax
        ljmp   0x08, offset long_mode

        .code64
long_mode:
        mov    ax, 0x10
        mov    ds, ax
        mov    es, ax
        mov    ss, ax
        mov    eax, 1
        cpuid
        test   edx, 0x200               # there is a local APIC
        jz     failed
        mov    ecx, 0xc0000100          # FS base: written and read back
        mov    eax, MARK
        xor    edx, edx
        wrmsr
        xor    eax, eax
        rdmsr
        cmp    eax, MARK
        jne    failed
        mov    ecx, 0xc0000081          # STAR: kernel segments 0x08, user segments 0x18 + 16
        xor    eax, eax
        mov    edx, 0x00180008
        wrmsr
        mov    ecx, 0xc0000082          # LSTAR: where SYSCALL enters
        mov    eax, offset kernel
        xor    edx, edx
        wrmsr
        mov    ecx, offset user
        mov    r11d, 2                  # flags in user mode: interrupts off
        sysretq
user:   mov    ax, cs
        and    al, 3
        cmp    al, 3
        jne    .
        syscall
kernel: mov    ax, 0x10
        mov    ss, ax
        mov    esp, 0x7c00
        mov    al, 0xff
        out    0x21, al                 # the old interrupt controllers stay out of it
        out    0xa1, al
        mov    ebx, APIC
        mov    dword ptr [rbx + 0xf0], 0x1ff
        mov    dword ptr [rbx + 0x3e0], 0x0b
        mov    dword ptr [rbx + 0x320], VECTOR
        mov    dword ptr [rbx + 0x380], 100000
        sti
sleep:  hlt
        jmp    sleep
timer:  mov    al, 0x2a
        out    0xf4, al
failed: mov    al, 0x01
        out    0xf4, al
        jmp    failed

        .balign 8
gdt:    .quad  0
        .quad  0x00209a0000000000       # 0x08 kernel code, 64 bits
        .quad  0x0000920000000000       # 0x10 kernel data
        .quad  0                        # 0x18 (user code, 32 bits: unused)
        .quad  0x0000f20000000000       # 0x20 user data
        .quad  0x0020fa0000000000       # 0x28 user code, 64 bits
gdtr:   .word  gdtr - gdt - 1
        .long  gdt
idtr:   .word  0x0fff
        .long  IDT
        .org   _start + 510
        .word  0xaa55
