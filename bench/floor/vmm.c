/*
 * floor: a bare C VMM, the speed floor of the boot benchmarks. One vCPU, RAM and a UART that transmits, nothing else;
 * every other port or address answers with all ones and drops what is written.
 *
 * It trusts its command line and its files, and a guest can at worst make it stop: it is a yardstick, not a product.
 */
#define _GNU_SOURCE
#include <asm/bootparam.h>
#include <elf.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

enum { /* where things are: in guest memory, then at ports */
    START_INFO = 0x6000, ZERO_PAGE = 0x7000, STACK = 0x8ff0, PAGE_TABLES = 0x9000, COMMAND_LINE = 0x20000,
    LOW_END = 0x9fc00, HIGH = 0x100000, CMOS_DATA = 0x71, COM1 = 0x3f8, BOOT_TIMER = 0x5f0, BOOTED = 0x7b,
};
#define HUGE_PAGE (2ull << 20)
#define ALIGN(n, to) (((n) + (to) - 1) & ~((to) - 1))

static uint8_t *ram;
static uint64_t ram_size, rsdp, initrd, initrd_size;
static int vm, vcpu;
static struct kvm_run *run;
static struct timespec entered; /* when the guest was */

/* An ioctl that must work; its name is the error message. */
#define CALL(fd, request, arg) call(fd, request, (void *)(uintptr_t)(arg), #request)
static int call(int fd, unsigned long request, void *arg, const char *name)
{
    int ret = ioctl(fd, request, arg);
    if (ret < 0)
        err(2, "%s", name);
    return ret;
}

static void *at(uint64_t address, uint64_t size)
{
    if (address > ram_size || size > ram_size - address)
        errx(2, "a file does not fit guest memory; use a larger --memory");
    return ram + address;
}

/* A whole file; it stays open and mapped to the end. */
static const uint8_t *map_file(const char *path, uint64_t *size)
{
    struct stat st;
    void *data = MAP_FAILED;
    int fd = open(path, O_RDONLY);
    if (fd >= 0 && !fstat(fd, &st))
        data = mmap(NULL, *size = st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (data == MAP_FAILED)
        err(2, "%s", path);
    return data;
}

/* An ELF vmlinux, to be entered in 32-bit mode where its PVH note says. */
static uint64_t load_elf(const uint8_t *file)
{
    const Elf64_Ehdr *eh = (const void *)file;
    const Elf64_Phdr *ph = (const void *)(file + eh->e_phoff);
    uint64_t entry = 0;
    for (int i = 0; i < eh->e_phnum; i++, ph++) {
        if (ph->p_type == PT_LOAD)
            memcpy(at(ph->p_paddr, ph->p_filesz), file + ph->p_offset, ph->p_filesz);
        const uint8_t *note = file + ph->p_offset, *end = note + ph->p_filesz;
        while (ph->p_type == PT_NOTE && note < end) {
            const Elf64_Nhdr *head = (const void *)note;
            const uint8_t *name = note + sizeof *head, *value = name + ALIGN(head->n_namesz, 4u);
            if (head->n_type == 18 && !memcmp(name, "Xen", 4)) /* XEN_ELFNOTE_PHYS32_ENTRY */
                entry = *(const uint32_t *)value;
            note = value + ALIGN(head->n_descsz, 4u);
        }
    }
    if (!entry)
        errx(2, "kernel: the ELF file has no PVH entry note");
    struct start_info { /* xen/include/public/arch-x86/hvm/start_info.h, then what it points to */
        uint32_t magic, version, flags, nr_modules;
        uint64_t modlist, cmdline, rsdp, memmap;
        uint32_t memmap_entries, reserved;
        struct { uint64_t addr, size, cmdline, reserved; } initrd;
        struct { uint64_t addr, size; uint32_t type, reserved; } map[2];
    } *info = at(START_INFO, sizeof *info);
    *info = (struct start_info){
        .magic = 0x336ec578, .version = 1, .cmdline = COMMAND_LINE, .rsdp = rsdp,
        .nr_modules = initrd_size != 0, .modlist = START_INFO + offsetof(struct start_info, initrd),
        .memmap_entries = 2, .memmap = START_INFO + offsetof(struct start_info, map),
        .initrd = {initrd, initrd_size, 0, 0},
        .map = {{0, LOW_END, 1, 0}, {HIGH, ram_size - HIGH, 1, 0}},
    };
    return entry;
}

/* A bzImage, to be entered at its 64-bit entry with the first GiB mapped to itself. */
static uint64_t load_bzimage(const uint8_t *file, uint64_t size)
{
    struct boot_params *bp = at(ZERO_PAGE, sizeof *bp);
    struct setup_header *hdr = &bp->hdr;
    memcpy(hdr, file + 0x1f1, sizeof *hdr);
    if (memcmp(&hdr->header, "HdrS", 4) || !(hdr->xloadflags & XLF_KERNEL_64))
        errx(2, "kernel: neither ELF nor bzImage with a 64-bit entry");
    unsigned setup_size = ((hdr->setup_sects ? hdr->setup_sects : 4) + 1) * 512;
    uint8_t *kernel = at(hdr->pref_address, hdr->init_size); /* there it need not move itself out of the way */
    memcpy(kernel, file + setup_size, size - setup_size);

    hdr->type_of_loader = 0xff;
    hdr->cmd_line_ptr = COMMAND_LINE;
    hdr->ramdisk_image = initrd, hdr->ramdisk_size = initrd_size;
    bp->acpi_rsdp_addr = rsdp;
    bp->e820_entries = 2;
    bp->e820_table[0] = (struct boot_e820_entry){0, LOW_END, 1};
    bp->e820_table[1] = (struct boot_e820_entry){HIGH, ram_size - HIGH, 1};
    uint64_t *table = at(PAGE_TABLES, 3 * 4096); /* PML4, PDPT, then a page directory of 2 MiB pages */
    table[0] = (PAGE_TABLES + 0x1000) | 3;
    table[512] = (PAGE_TABLES + 0x2000) | 3;
    for (uint64_t i = 0; i < 512; i++)
        table[1024 + i] = i << 21 | 0x83;
    return hdr->pref_address + 0x200;
}

static void create_machine(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        err(2, "/dev/kvm");
    vm = CALL(kvm, KVM_CREATE_VM, 0);
    CALL(vm, KVM_SET_TSS_ADDR, 0xfffbd000u);
    CALL(vm, KVM_CREATE_IRQCHIP, 0);
    CALL(vm, KVM_CREATE_PIT2, (&(struct kvm_pit_config){.flags = KVM_PIT_SPEAKER_DUMMY}));

    vcpu = CALL(vm, KVM_CREATE_VCPU, 0);
    run = mmap(NULL, CALL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    ram = mmap(NULL, ram_size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (run == MAP_FAILED || ram == MAP_FAILED)
        err(2, "mmap");

    /* Aligned to huge pages: each small page costs the host a nested page fault of its own. */
    ram = (uint8_t *)ALIGN((uintptr_t)ram, HUGE_PAGE);
    madvise(ram, ram_size, MADV_HUGEPAGE);
    struct kvm_userspace_memory_region region = {0, 0, 0, ram_size, (uintptr_t)ram};
    CALL(vm, KVM_SET_USER_MEMORY_REGION, &region);

    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + 256 * sizeof *cpuid->entries);
    cpuid->nent = 256;
    CALL(kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
    for (struct kvm_cpuid_entry2 *e = cpuid->entries; e < cpuid->entries + cpuid->nent; e++)
        if (e->function == 1) {
            e->ebx &= 0x00ffffff; /* APIC id: KVM reports that of the host CPU it asked */
            e->ecx |= 1u << 31 | 1u << 24; /* hypervisor (so there is kvm-clock), TSC deadline timer */
        } else if (e->function == 0xb || e->function == 0x1f)
            e->edx = 0; /* the APIC id once more */
    CALL(vcpu, KVM_SET_CPUID2, cpuid);
}

/* Flat segments; protected mode without paging for the PVH entry, long mode for the other. */
static void set_registers(uint64_t entry, int pvh)
{
    struct kvm_regs r = {.rip = entry, .rflags = 2, .rsp = STACK, .rsi = ZERO_PAGE, .rbx = START_INFO};
    struct kvm_sregs s;
    CALL(vcpu, KVM_GET_SREGS, &s);
    s.ds = (struct kvm_segment){.limit = ~0u, .selector = 0x18, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    s.cs = s.es = s.fs = s.gs = s.ss = s.ds;
    s.cs.selector = 0x10, s.cs.type = 11;
    s.cr0 = 0x11; /* PE and ET; at reset it also says that caches are off */
    if (!pvh) {
        s.cs.db = 0, s.cs.l = 1;
        s.cr3 = PAGE_TABLES, s.cr4 |= 1 << 5 /* PAE */, s.cr0 |= 1u << 31 /* PG */, s.efer |= 0x500 /* LME, LMA */;
    }
    CALL(vcpu, KVM_SET_SREGS, &s);
    CALL(vcpu, KVM_SET_REGS, &r);
}

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, DIVISOR = 8 };
static uint8_t uart[10], thre; /* registers as written, the divisor latch behind them; THRE interrupt pending */

static void uart_write(unsigned reg, uint8_t v)
{
    if (reg <= IER && uart[LCR] & 0x80)
        reg += DIVISOR;
    uart[reg] = reg == IER ? v & 15 : v;
    if (reg == DATA && !(uart[MCR] & 0x10)) /* not in loopback */
        putchar_unlocked(v);
    if (reg <= IER) {
        thre = 1; /* sent at once, so the holding register is empty again */
        for (unsigned level = 0; level < 2 && uart[IER] & 2; level++) /* down and up: the line is edge triggered */
            CALL(vm, KVM_IRQ_LINE, (&(struct kvm_irq_level){.irq = 4, .level = level}));
    }
}

static uint8_t uart_read(unsigned reg)
{
    int pending = thre && uart[IER] & 2, m = uart[MCR];
    switch (reg <= IER && uart[LCR] & 0x80 ? reg + DIVISOR : reg) {
    case DATA: return 0;
    case IIR: thre &= !pending; return (uart[IIR] & 1 ? 0xc0 : 0) | (pending ? 2 : 1); /* written, it is the FCR */
    case LSR: return 0x60; /* both transmit registers are always empty */
    case MSR: return m & 0x10 /* loopback */ ? (m & 2) << 3 | (m & 1) << 5 | (m & 12) << 4 : 0xb0;
    default: return uart[reg];
    }
}

static void port_write(unsigned port, uint8_t v)
{
    if (port == BOOT_TIMER && v == BOOTED) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        printf("\nfloor: %.3f s\n", (t.tv_sec - entered.tv_sec) + (t.tv_nsec - entered.tv_nsec) * 1e-9);
        exit(0);
    }
    if (port == 0x64 && v == 0xfe)
        errx(2, "the guest restarted before it wrote to the boot timer");
    if (port - COM1 < 8)
        uart_write(port - COM1, v);
}

static void handle_exit(void)
{
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    unsigned port = run->io.port;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size)
            if (run->io.direction == KVM_EXIT_IO_OUT) {
                port_write(port, *data);
            } else {
                memset(data, 0xff, run->io.size);
                /* The CMOS is empty: all ones is an update in progress, which Linux polls 80,000 times. */
                *data = port - COM1 < 8 ? uart_read(port - COM1) : port == CMOS_DATA ? 0 : 0xff;
            }
        break;
    case KVM_EXIT_MMIO:
        if (!run->mmio.is_write)
            memset(run->mmio.data, 0xff, sizeof run->mmio.data);
        break;
    default:
        errx(2, "exit reason %u (%u is a triple fault)", run->exit_reason, KVM_EXIT_SHUTDOWN);
    }
}

int main(int argc, char **argv)
{
    enum { KERNEL, INITRD, CMDLINE, MEMORY, ACPI };
    static const struct option names[] = {
        {"kernel", 1, 0, 0}, {"initrd", 1, 0, 0}, {"cmdline", 1, 0, 0}, {"memory", 1, 0, 0}, {"acpi", 1, 0, 0}, {0},
    };
    char *option[] = {NULL, NULL, "console=ttyS0 quiet", "128", NULL};
    int o, which;
    while ((o = getopt_long(argc, argv, "", names, &which)) == 0)
        option[which] = optarg;
    ram_size = strtoull(option[MEMORY], NULL, 0) << 20; /* at most 3 GiB: above lie the APICs */
    char *address = option[ACPI] ? strrchr(option[ACPI], '@') : "";
    if (o != -1 || !option[KERNEL] || !address || ram_size < 16ull << 20 || ram_size > 3ull << 30)
        errx(2, "usage: floor --kernel K [--initrd I] [--cmdline C] [--memory MiB] [--acpi FILE@ADDRESS]");

    uint64_t size;
    create_machine();
    strcpy(at(COMMAND_LINE, strlen(option[CMDLINE]) + 1), option[CMDLINE]);
    if (option[INITRD]) {
        const uint8_t *file = map_file(option[INITRD], &initrd_size);
        initrd = (ram_size - initrd_size) & ~0xfffull; /* at() refuses what wraps */
        memcpy(at(initrd, initrd_size), file, initrd_size);
    }
    if (option[ACPI]) {
        *address = 0;
        const uint8_t *file = map_file(option[ACPI], &size);
        rsdp = strtoull(address + 1, NULL, 0);
        memcpy(at(rsdp, size), file, size);
    }
    const uint8_t *kernel = map_file(option[KERNEL], &size);
    int elf = !memcmp(kernel, ELFMAG, SELFMAG);
    set_registers(elf ? load_elf(kernel) : load_bzimage(kernel, size), elf);
    clock_gettime(CLOCK_MONOTONIC, &entered);
    for (;; handle_exit())
        while (ioctl(vcpu, KVM_RUN, 0))
            if (errno != EINTR)
                err(2, "KVM_RUN");
}
