/*
 * floor: a bare C VMM, the speed floor of the boot benchmarks. One vCPU, RAM, a UART that transmits, an RTC that tells
 * the time, nothing else; every other port or address answers with all ones and drops what is written.
 *
 * It trusts its command line and its files, and a guest can at worst make it stop: it is a yardstick, not a product.
 */
#define _GNU_SOURCE
#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    ZERO_PAGE = 0x7000, START_INFO = 0x6000, MODULES = 0x6040, MEMORY_MAP = 0x6100, STACK = 0x8ff0,
    PAGE_TABLES = 0x9000, COMMAND_LINE = 0x20000, LOW_END = 0x9fc00, KERNEL = 0x100000,
    IDENTITY_MAP = 0xfffbc000u, TSS = 0xfffbd000u, COM1 = 0x3f8, BOOT_TIMER = 0x5f0, BOOTED = 0x7b,
};
#define MAX_RAM 0xc0000000ull /* above it lie the APICs */
#define HUGE_PAGE (2ull << 20)
#define XEN_PHYS32_ENTRY 18

struct start_info { /* PVH boot ABI, xen/include/public/arch-x86/hvm/start_info.h */
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist, cmdline, rsdp, memmap;
    uint32_t memmap_entries, reserved;
};
struct pvh_range { uint64_t addr, size; uint32_t type, reserved; };
struct pvh_module { uint64_t addr, size, cmdline, reserved; };

struct guest {
    uint8_t *ram;
    uint64_t size, entry, rsdp, initrd, initrd_size;
    int pvh, vm, vcpu;
    struct kvm_run *run;
    uint64_t exits, ports[0x10000], mmio;
};

static void die(const char *what) { fprintf(stderr, "floor: %s: %s\n", what, strerror(errno)); exit(2); }
static void refuse(const char *what) { fprintf(stderr, "floor: %s\n", what); exit(2); }

/* An ioctl that must work; its name is the error message. */
#define CALL(fd, request, arg) call(fd, request, arg, #request)
static int call(int fd, unsigned long request, void *arg, const char *what)
{
    int ret = ioctl(fd, request, arg);
    if (ret < 0)
        die(what);
    return ret;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* RAM ---------------------------------------------------------------------------------------------------------------- */

static void *at(struct guest *g, uint64_t address, uint64_t size)
{
    if (address > g->size || size > g->size - address)
        refuse("a file does not fit guest memory; use a larger --memory");
    return g->ram + address;
}

static void read_at(struct guest *g, int fd, uint64_t offset, uint64_t address, uint64_t size)
{
    uint8_t *to = at(g, address, size);
    while (size) {
        ssize_t got = pread(fd, to, size, offset);
        if (got <= 0)
            die("read");
        to += got, offset += got, size -= got;
    }
}

static int open_file(const char *path, uint64_t *size)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        die(path);
    *size = st.st_size;
    return fd;
}

/* Aligned to huge pages: each small page costs the host a nested page fault of its own. */
static void map_ram(struct guest *g)
{
    uint8_t *raw = mmap(NULL, g->size + HUGE_PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        die("mmap of guest memory");
    g->ram = (uint8_t *)(((uintptr_t)raw + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
    madvise(g->ram, g->size, MADV_HUGEPAGE);
    struct kvm_userspace_memory_region region = {0, 0, 0, g->size, (uintptr_t)g->ram};
    CALL(g->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Loading ------------------------------------------------------------------------------------------------------------ */

static void find_pvh_note(struct guest *g, int fd, const Elf64_Phdr *ph)
{
    uint8_t notes[4096];
    ssize_t size = pread(fd, notes, sizeof notes, ph->p_offset);
    for (ssize_t i = 0; i + (ssize_t)sizeof(Elf64_Nhdr) + 8 <= size && i < (ssize_t)ph->p_filesz;) {
        Elf64_Nhdr note;
        memcpy(&note, notes + i, sizeof note);
        ssize_t desc = i + sizeof note + (note.n_namesz + 3) / 4 * 4;
        if (note.n_type == XEN_PHYS32_ENTRY && !memcmp(notes + i + sizeof note, "Xen", 4) && desc + 4 <= size)
            g->entry = *(uint32_t *)(notes + desc), g->pvh = 1;
        i = desc + (note.n_descsz + 3) / 4 * 4;
    }
}

static void load_elf(struct guest *g, int fd)
{
    Elf64_Ehdr eh;
    Elf64_Phdr ph[32];
    if (pread(fd, &eh, sizeof eh, 0) != sizeof eh || eh.e_phnum > 32 || eh.e_phentsize != sizeof *ph)
        refuse("kernel: not an x86-64 ELF file this floor understands");
    if (pread(fd, ph, eh.e_phnum * sizeof *ph, eh.e_phoff) != (ssize_t)(eh.e_phnum * sizeof *ph))
        die("ELF program headers");
    for (int i = 0; i < eh.e_phnum; i++)
        if (ph[i].p_type == PT_NOTE)
            find_pvh_note(g, fd, &ph[i]);
        else if (ph[i].p_type == PT_LOAD)
            read_at(g, fd, ph[i].p_offset, ph[i].p_paddr, ph[i].p_filesz);
    if (!g->pvh)
        refuse("kernel: the ELF file has no PVH entry note");
}

static void load_bzimage(struct guest *g, int fd, uint64_t size)
{
    struct boot_params *bp = at(g, ZERO_PAGE, sizeof *bp);
    struct setup_header *hdr = &bp->hdr;
    uint8_t setup[0x400];
    if (pread(fd, setup, sizeof setup, 0) != sizeof setup || memcmp(setup + 0x202, "HdrS", 4))
        refuse("kernel: neither ELF nor bzImage");
    unsigned length = 0x202 + setup[0x201] - 0x1f1; /* the header says where it ends */
    memcpy(hdr, setup + 0x1f1, length < sizeof *hdr ? length : sizeof *hdr);
    if (!(hdr->xloadflags & XLF_KERNEL_64))
        refuse("kernel: the bzImage has no 64-bit entry");
    uint64_t start = ((hdr->setup_sects ? hdr->setup_sects : 4) + 1) * 512;
    at(g, hdr->pref_address, hdr->init_size);
    read_at(g, fd, start, hdr->pref_address, size - start); /* there it need not move itself out of the way */
    g->entry = hdr->pref_address + 0x200;
}

static void load_kernel(struct guest *g, const char *path)
{
    uint64_t size;
    char magic[4] = "";
    int fd = open_file(path, &size);
    if (pread(fd, magic, 4, 0) == 4 && !memcmp(magic, ELFMAG, 4))
        load_elf(g, fd);
    else
        load_bzimage(g, fd, size);
    close(fd);
}

/* Put a whole file at an address, or at the last page it fits behind when the address is ~0. */
static uint64_t load_file(struct guest *g, const char *path, uint64_t address, uint64_t *size)
{
    int fd = open_file(path, size);
    if (address == ~0ull)
        address = (g->size - *size) & ~0xfffull; /* at() refuses what wraps */
    read_at(g, fd, 0, address, *size);
    close(fd);
    return address;
}

static void load_acpi(struct guest *g, char *spec)
{
    uint64_t size;
    char *mark = strrchr(spec, '@');
    if (!mark)
        refuse("--acpi wants FILE@ADDRESS; the RSDP comes first in the file");
    *mark = 0;
    g->rsdp = load_file(g, spec, strtoull(mark + 1, NULL, 0), &size);
}

static void pvh_start_info(struct guest *g)
{
    struct pvh_range map[2] = {{0, LOW_END, 1, 0}, {KERNEL, g->size - KERNEL, 1, 0}};
    struct pvh_module module = {g->initrd, g->initrd_size, 0, 0};
    struct start_info info = {.magic = 0x336ec578, .version = 1, .nr_modules = g->initrd_size != 0, .modlist = MODULES,
                              .cmdline = COMMAND_LINE, .rsdp = g->rsdp, .memmap = MEMORY_MAP, .memmap_entries = 2};
    memcpy(at(g, START_INFO, sizeof info), &info, sizeof info);
    memcpy(at(g, MODULES, sizeof module), &module, sizeof module);
    memcpy(at(g, MEMORY_MAP, sizeof map), map, sizeof map);
}

static void zero_page(struct guest *g)
{
    struct boot_params *bp = at(g, ZERO_PAGE, sizeof *bp);
    bp->hdr.type_of_loader = 0xff;
    bp->hdr.cmd_line_ptr = COMMAND_LINE;
    bp->hdr.ramdisk_image = g->initrd;
    bp->hdr.ramdisk_size = g->initrd_size;
    bp->acpi_rsdp_addr = g->rsdp;
    bp->e820_entries = 2;
    bp->e820_table[0] = (struct boot_e820_entry){0, LOW_END, 1};
    bp->e820_table[1] = (struct boot_e820_entry){KERNEL, g->size - KERNEL, 1};
    uint64_t *table = at(g, PAGE_TABLES, 6 * 4096); /* PML4, PDPT, then four page directories of 2 MiB pages */
    table[0] = (PAGE_TABLES + 0x1000) | 3;
    for (int i = 0; i < 4; i++)
        table[512 + i] = (PAGE_TABLES + 0x2000 + 0x1000 * i) | 3;
    for (uint64_t i = 0; i < 2048; i++)
        table[1024 + i] = i << 21 | 0x83;
}

/* The virtual CPU ---------------------------------------------------------------------------------------------------- */

static void set_cpuid(struct guest *g, int kvm)
{
    struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid = {.head.nent = 256};
    CALL(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
    for (unsigned i = 0; i < cpuid.head.nent; i++)
        if (cpuid.entries[i].function == 1) {
            cpuid.entries[i].ebx &= 0x00ffffff; /* APIC id: KVM reports that of the host CPU it asked */
            cpuid.entries[i].ecx |= 1u << 31 | 1u << 24; /* hypervisor (so there is kvm-clock), TSC deadline timer */
        } else if (cpuid.entries[i].function == 0xb)
            cpuid.entries[i].edx = 0;
    CALL(g->vcpu, KVM_SET_CPUID2, &cpuid);
}

static void set_registers(struct guest *g)
{
    struct kvm_sregs s;
    struct kvm_regs r = {.rip = g->entry, .rflags = 2, .rsp = STACK, .rsi = ZERO_PAGE, .rbx = START_INFO};
    CALL(g->vcpu, KVM_GET_SREGS, &s);
    struct kvm_segment data = {.limit = 0xffffffff, .selector = 0x18, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.cs = data;
    s.cs.selector = 0x10, s.cs.type = 11;
    s.cr0 = 0x11; /* at reset it also says that caches are off */
    if (!g->pvh) {
        s.cs.db = 0, s.cs.l = 1;
        s.cr3 = PAGE_TABLES, s.cr4 |= 1 << 5, s.cr0 |= 1u << 31, s.efer |= 0x500;
    }
    CALL(g->vcpu, KVM_SET_SREGS, &s);
    CALL(g->vcpu, KVM_SET_REGS, &r);
}

static void create(struct guest *g, int kvm)
{
    uint64_t identity = IDENTITY_MAP;
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    g->vm = CALL(kvm, KVM_CREATE_VM, NULL);
    CALL(g->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    CALL(g->vm, KVM_SET_TSS_ADDR, (void *)(uintptr_t)TSS);
    CALL(g->vm, KVM_CREATE_IRQCHIP, NULL);
    CALL(g->vm, KVM_CREATE_PIT2, &pit);
    map_ram(g);
    g->vcpu = CALL(g->vm, KVM_CREATE_VCPU, NULL);
    g->run = mmap(NULL, CALL(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL),
                  PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
    if (g->run == MAP_FAILED)
        die("mmap of kvm_run");
    set_cpuid(g, kvm);
}

/* Devices ------------------------------------------------------------------------------------------------------------ */

static struct { uint8_t ier, lcr, mcr, scr, fcr, dll, dlm, thre; } uart;
static uint8_t cmos_index;

static void uart_irq(struct guest *g)
{
    for (unsigned level = 0; level < 2; level++) { /* down and up again: the line is edge triggered */
        struct kvm_irq_level line = {.irq = 4, .level = level};
        CALL(g->vm, KVM_IRQ_LINE, &line);
    }
}

static void uart_write(struct guest *g, unsigned reg, uint8_t v)
{
    uint8_t *latch[] = {&uart.dll, &uart.dlm, &uart.fcr, &uart.lcr, &uart.mcr, NULL, NULL, &uart.scr};
    if (reg > 1 || uart.lcr & 0x80) {
        if (latch[reg])
            *latch[reg] = v;
        return;
    }
    if (reg == 0 && !(uart.mcr & 0x10))
        putchar_unlocked(v);
    if (reg == 1)
        uart.ier = v & 15;
    uart.thre = 1; /* sent at once, so the holding register is empty again */
    if (uart.ier & 2)
        uart_irq(g);
}

static uint8_t uart_read(unsigned reg)
{
    int dlab = uart.lcr & 0x80, pending = uart.thre && uart.ier & 2;
    switch (reg) {
    case 0: return dlab ? uart.dll : 0;
    case 1: return dlab ? uart.dlm : uart.ier;
    case 2: uart.thre &= !pending; return (uart.fcr & 1 ? 0xc0 : 0) | (pending ? 2 : 1);
    case 3: return uart.lcr;
    case 4: return uart.mcr;
    case 5: return 0x60; /* both transmit registers are always empty */
    case 6: return uart.mcr & 0x10 ? (uart.mcr & 2) << 3 | (uart.mcr & 1) << 5 | (uart.mcr & 12) << 4 : 0xb0;
    default: return uart.scr;
    }
}

static uint8_t cmos_read(void)
{
    time_t t = time(NULL);
    struct tm tm;
    gmtime_r(&t, &tm);
    int year = tm.tm_year % 100, century = 19 + tm.tm_year / 100;
    int clock[0x33] = {tm.tm_sec, 0, tm.tm_min, 0, tm.tm_hour, 0, tm.tm_wday + 1, tm.tm_mday, tm.tm_mon + 1, year};
    clock[0x0a] = 26; /* no update in progress, ever: polling it costs 80,000 exits */
    clock[0x0b] = 2;  /* 24 hours, BCD */
    clock[0x0d] = 80; /* battery good */
    clock[0x32] = century;
    int n = cmos_index < 0x33 ? clock[cmos_index] : 0;
    return n / 10 << 4 | n % 10;
}

/* Returns 1 when the guest is done. */
static int port_write(struct guest *g, unsigned port, uint8_t v)
{
    if (port - COM1 < 8)
        uart_write(g, port - COM1, v);
    else if (port == 0x70)
        cmos_index = v & 0x7f;
    else if (port == 0x64 && v == 0xfe)
        refuse("the guest restarted before it wrote to the boot timer");
    return port == BOOT_TIMER && v == BOOTED;
}

static int handle_io(struct guest *g)
{
    struct kvm_run *run = g->run;
    unsigned port = run->io.port;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    g->ports[port]++;
    for (unsigned i = 0; i < run->io.count; i++, data += run->io.size) {
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            if (port_write(g, port, data[0]))
                return 1;
            continue;
        }
        memset(data, 0xff, run->io.size);
        if (port - COM1 < 8)
            data[0] = uart_read(port - COM1);
        else if (port == 0x71)
            data[0] = cmos_read();
    }
    return 0;
}

static void run(struct guest *g)
{
    for (;;) {
        if (ioctl(g->vcpu, KVM_RUN, NULL)) {
            if (errno != EINTR && errno != EAGAIN)
                die("KVM_RUN");
            continue;
        }
        g->exits++;
        switch (g->run->exit_reason) {
        case KVM_EXIT_IO:
            if (handle_io(g))
                return;
            break;
        case KVM_EXIT_MMIO:
            g->mmio++;
            if (!g->run->mmio.is_write)
                memset(g->run->mmio.data, 0xff, 8);
            break;
        case KVM_EXIT_SHUTDOWN:
            refuse("triple fault before the guest wrote to the boot timer");
            break;
        default:
            fprintf(stderr, "floor: exit reason %u\n", g->run->exit_reason);
            exit(2);
        }
    }
}

static void statistics(struct guest *g)
{
    fprintf(stderr, "floor: %llu exits, %llu of them MMIO\n", (unsigned long long)g->exits, (unsigned long long)g->mmio);
    for (unsigned port = 0; port < 0x10000; port++)
        if (g->ports[port])
            fprintf(stderr, "floor:   port %#05x %llu\n", port, (unsigned long long)g->ports[port]);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"kernel", 1, 0, 'k'}, {"initrd", 1, 0, 'i'}, {"cmdline", 1, 0, 'c'}, {"memory", 1, 0, 'm'},
        {"acpi", 1, 0, 'a'}, {"stats", 0, 0, 's'}, {0},
    };
    static struct guest g = {.size = 128ull << 20};
    const char *kernel = NULL, *initrd = NULL, *cmdline = "console=ttyS0 quiet";
    char *acpi = NULL;
    int stats = 0;
    double born = now();
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (o) {
        case 'k': kernel = optarg; break;
        case 'i': initrd = optarg; break;
        case 'c': cmdline = optarg; break;
        case 'm': g.size = strtoull(optarg, NULL, 0) << 20; break;
        case 'a': acpi = optarg; break;
        case 's': stats = 1; break;
        default: return 2;
        }
    if (!kernel || g.size < 16ull << 20 || g.size > MAX_RAM || strlen(cmdline) > 4095)
        refuse("usage: floor --kernel K [--initrd I] [--cmdline C] [--memory MiB] [--acpi FILE@ADDRESS] [--stats]");
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        die("/dev/kvm");
    create(&g, kvm);
    load_kernel(&g, kernel);
    if (initrd)
        g.initrd = load_file(&g, initrd, ~0ull, &g.initrd_size);
    if (acpi)
        load_acpi(&g, acpi);
    strcpy(at(&g, COMMAND_LINE, 4096), cmdline);
    (g.pvh ? pvh_start_info : zero_page)(&g);
    set_registers(&g);
    double entered = now();
    run(&g);
    double booted = now();
    printf("\nfloor: %.3f s\nfloor: %.3f s with loading\n", booted - entered, booted - born);
    if (stats)
        statistics(&g);
    return 0;
}
