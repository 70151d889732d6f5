/* The floor of an exit: KVM_RUN in a loop, each port access answered on the spot.
 *
 * exits CODE COUNT TICKS; CODE is the guest's machine code in hex, put at 0x1000 and entered in real mode. Then, for each line on
 * stdin, one run: to the guest's write to port 0x81, answered by a line with the ns of each of COUNT exits. With TICKS 1 the guest has left
 * a 32-bit time stamp for each at 0x10000, and p50, p99 and maximum of their distances follow, in ticks. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define CALL(fd, request, arg) ({ int r_ = ioctl(fd, request, arg); if (r_ < 0) err(2, #request); r_; })

enum { CODE = 0x1000, STAMPS = 0x10000, RAM = 0x20000, DONE = 0x81 };

static struct kvm_run *run;
static uint8_t *ram;
static int vcpu;

static void create(const char *hex)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        err(2, "/dev/kvm");
    int vm = CALL(kvm, KVM_CREATE_VM, 0);
    CALL(vm, KVM_SET_TSS_ADDR, 0xfffbd000u);
    CALL(vm, KVM_CREATE_IRQCHIP, 0);
    CALL(vm, KVM_CREATE_PIT2, (&(struct kvm_pit_config){.flags = KVM_PIT_SPEAKER_DUMMY}));
    ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    vcpu = CALL(vm, KVM_CREATE_VCPU, 0);
    run = mmap(NULL, CALL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (ram == MAP_FAILED || run == MAP_FAILED)
        err(2, "mmap");
    struct kvm_userspace_memory_region region = {0, 0, 0, RAM, (uintptr_t)ram};
    CALL(vm, KVM_SET_USER_MEMORY_REGION, &region);
    for (unsigned i = 0, byte; sscanf(hex + 2 * i, "%2x", &byte) == 1; i++)
        ram[CODE + i] = byte;

    struct kvm_sregs s;
    CALL(vcpu, KVM_GET_SREGS, &s);
    s.cs.base = s.cs.selector = 0;
    s.es.base = STAMPS, s.es.selector = STAMPS >> 4;
    CALL(vcpu, KVM_SET_SREGS, &s);
    CALL(vcpu, KVM_SET_REGS, (&(struct kvm_regs){.rip = CODE, .rflags = 2}));
}

/* Run to the guest's last write of this round. */
static void round_of_exits(void)
{
    for (;;) {
        if (ioctl(vcpu, KVM_RUN, 0)) {
            if (errno != EINTR)
                err(2, "KVM_RUN");
            continue;
        }
        if (run->exit_reason != KVM_EXIT_IO)
            errx(2, "exit reason %u", run->exit_reason);
        if (run->io.direction == KVM_EXIT_IO_IN)
            memset((uint8_t *)run + run->io.data_offset, 0xff, run->io.size * run->io.count);
        else if (run->io.port == DONE)
            return;
    }
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        errx(2, "usage: exits CODE COUNT TICKS");
    int count = atoi(argv[2]), ticks = atoi(argv[3]);
    if (count < 2 || 4 * count > 0x10000)
        errx(2, "COUNT is %d, must be from 2 to 16384", count);
    create(argv[1]);
    for (int line; scanf("%d", &line) == 1; fflush(stdout)) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        round_of_exits();
        clock_gettime(CLOCK_MONOTONIC, &to);
        printf("%f", ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / count);
        uint32_t *t = (uint32_t *)(ram + STAMPS);
        for (int i = 0; ticks && i + 1 < count; i++)
            t[i] = t[i + 1] - t[i];
        if (ticks) {
            qsort(t, count - 1, sizeof *t, by_size);
            printf(" %u %u %u", t[(count - 1) / 2], t[(count - 1) * 99 / 100], t[count - 2]);
        }
        puts("");
    }
    return 0;
}
