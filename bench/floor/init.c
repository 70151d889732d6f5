/* /init of the benchmark guest: says "userspace reached" at the boot-timer port, then restarts. No libc: the smaller
 * the initramfs, the less of what is measured is its unpacking.
 *
 * The kernel's log gets a marker first, for VMMs without a boot timer: under QEMU machines with SeaBIOS an OUT in
 * ring 3 faults in the emulated host, because QEMU writes back a busy TSS and TCG's permission check wants an idle one. */
enum { SYS_WRITE = 1, SYS_OPEN = 2, SYS_MKNOD = 133, SYS_REBOOT = 169, SYS_IOPERM = 173 };
enum { BOOT_TIMER = 0x5f0, BOOTED = 0x7b, O_WRONLY = 1, CHAR_DEVICE = 0020600, DEV_KMSG = 0x10b };

static const char marker[] = "<1>{userspace}\n";

static long syscall4(long number, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return number;
}

__attribute__((noreturn)) void _start(void)
{
    syscall4(SYS_MKNOD, (long)"/kmsg", CHAR_DEVICE, DEV_KMSG, 0);
    syscall4(SYS_WRITE, syscall4(SYS_OPEN, (long)"/kmsg", O_WRONLY, 0, 0), (long)marker, sizeof marker - 1, 0);
    syscall4(SYS_IOPERM, BOOT_TIMER, 1, 1, 0);
    __asm__ volatile("outb %0, %1" : : "a"((char)BOOTED), "d"((short)BOOT_TIMER));
    syscall4(SYS_REBOOT, (int)0xfee1dead, 672274793, 0x01234567, 0);
    for (;;)
        ;
}
