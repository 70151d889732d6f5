/* The floor of guest memory access: memcpy between a buffer and a memfd, the kind of memory a guest has.
 *
 * copy BYTES; then, for each line on stdin, so many copies each way, answered by a line with the ns of one read and one
 * write. Memory is fresh for each line: which physical pages one gets decides how well they share a cache. The buffer begins
 * with a page, as everybody's does here: how it lies to the guest's pages decides whether stores make loads wait. */
#define _GNU_SOURCE
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

/* The compiler must believe that each copy is looked at. */
static double copies(unsigned long count, void *to, const void *from, size_t bytes)
{
    double start = now();
    for (unsigned long i = 0; i < count; i++) {
        memcpy(to, from, bytes);
        __asm__ volatile("" ::"r"(to) : "memory");
    }
    return (now() - start) / count;
}

int main(int argc, char **argv)
{
    size_t bytes = argc == 2 ? strtoull(argv[1], NULL, 0) : 0;
    if (!bytes)
        errx(2, "usage: copy BYTES");
    for (unsigned long count; scanf("%lu", &count) == 1; fflush(stdout)) {
        int fd = memfd_create("guest", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, 4 * bytes))
            err(2, "memfd");
        uint8_t *guest = mmap(NULL, 4 * bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *buffer = aligned_alloc(4096, bytes);
        if (guest == MAP_FAILED || !buffer)
            err(2, "memory");
        memset(guest, 1, 4 * bytes);
        memset(buffer, 2, bytes);
        double in = copies(count, buffer, guest + bytes, bytes);
        printf("%f %f\n", in, copies(count, guest + bytes, buffer, bytes));
        munmap(guest, 4 * bytes);
        free(buffer);
        close(fd);
    }
    return 0;
}
