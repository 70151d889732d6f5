/* The floor of typed accesses to guest memory: each address checked against the regions, one load or store, its page marked.
 *
 * access COUNT REGIONS BITMAP; then, for each line on stdin, so many rounds over COUNT addresses, answered by a line with the
 * ns of one load and of one store. Where they go is what bench/p5_access.py says. */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { MEMORY = 1 << 20, PAGE = 12, MAX_REGIONS = 64 };

struct region {
    uint64_t base, size, *dirty;
    uint8_t *host;
};

static struct region regions[MAX_REGIONS];
static uint64_t count;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

/* The region in which an aligned integer of 8 bytes lies, or NULL; `hint` is tried first. */
static inline const struct region *find(const struct region *hint, uint64_t gpa)
{
    uint64_t low = 0, high = count;
    if (gpa & 7)
        return NULL;
    if (gpa - hint->base < hint->size)
        return hint;
    while (high - low > 1) {
        uint64_t middle = (low + high) / 2;
        if (regions[middle].base <= gpa)
            low = middle;
        else
            high = middle;
    }
    return gpa - regions[low].base < regions[low].size ? &regions[low] : NULL;
}

static int load(const uint64_t *addresses, uint64_t *values, uint64_t n)
{
    const struct region *r = regions;
    for (uint64_t i = 0; i < n; i++) {
        if (!(r = find(r, addresses[i])))
            return -1;
        values[i] = __atomic_load_n((const uint64_t *)(r->host + (addresses[i] - r->base)), __ATOMIC_RELAXED);
    }
    return 0;
}

static int store(const uint64_t *addresses, const uint64_t *values, uint64_t n)
{
    const struct region *r = regions;
    for (uint64_t i = 0; i < n; i++) {
        if (!(r = find(r, addresses[i])))
            return -1;
        uint64_t offset = addresses[i] - r->base;
        __atomic_store_n((uint64_t *)(r->host + offset), values[i], __ATOMIC_RELAXED);
        if (r->dirty)
            __atomic_fetch_or(&r->dirty[offset >> (PAGE + 6)], 1ull << (offset >> PAGE & 63), __ATOMIC_RELEASE);
    }
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t n = argc == 4 ? strtoull(argv[1], NULL, 0) : 0;
    if (!n || (count = atoi(argv[2])) < 1 || count > MAX_REGIONS)
        errx(2, "usage: access COUNT REGIONS BITMAP");
    uint64_t part = MEMORY / count;
    for (uint64_t i = 0; i < count; i++) {
        void *host = mmap(NULL, part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (host == MAP_FAILED)
            err(2, "memory");
        memset(host, 1, part);
        regions[i] = (struct region){i * part, part, atoi(argv[3]) ? calloc((part >> (PAGE + 6)) + 1, 8) : NULL, host};
    }
    uint64_t *addresses = malloc(8 * n), *values = calloc(n, 8);
    for (uint64_t i = 0; i < n; i++)
        addresses[i] = i * 0x9E3779B1 % (MEMORY / 8) * 8;
    for (unsigned long rounds; scanf("%lu", &rounds) == 1; fflush(stdout)) {
        int bad = 0;
        double start = now();
        for (unsigned long i = 0; i < rounds; i++) {
            bad |= load(addresses, values, n);
            __asm__ volatile("" ::"r"(values) : "memory");
        }
        double loads = (now() - start) / (double)(rounds * n);
        start = now();
        for (unsigned long i = 0; i < rounds; i++) {
            bad |= store(addresses, values, n);
            __asm__ volatile("" ::"r"(values) : "memory");
        }
        if (bad)
            errx(2, "an address outside of memory");
        printf("%f %f\n", loads, (now() - start) / (double)(rounds * n));
    }
    return 0;
}
