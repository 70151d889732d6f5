/* What the floors of both queues have in common: guest memory of several regions, each address checked, and what a batch of
 * chains is popped into. One file a program, so that all of it is inlined. */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>


enum { PAGE = 12, MAX_SEGMENTS = 4096, MAX_REGIONS = 64 };

struct segment {
    uint64_t addr;
    uint32_t len, writable;
};
struct chain {
    uint32_t first, count, head, written;
    uint64_t readable, writable;
};

struct region {
    uint64_t base, size, *dirty;
    uint8_t *host;
};

static struct region regions[MAX_REGIONS];
static uint64_t count;
static struct segment segments[MAX_SEGMENTS];
static struct chain chains[1 << 15];

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static inline int inside(const struct region *r, uint64_t gpa, uint64_t len)
{
    return gpa >= r->base && gpa - r->base <= r->size && len <= r->size - (gpa - r->base);
}

/* The region that holds all of [gpa, gpa + len), or NULL; `hint` is tried first. */
static inline const struct region *find(const struct region *hint, uint64_t gpa, uint64_t len)
{
    uint64_t low = 0, high = count;
    if (__builtin_expect(inside(hint, gpa, len), 1))
        return hint;
    while (high - low > 1) {
        uint64_t middle = (low + high) / 2;
        if (regions[middle].base <= gpa)
            low = middle;
        else
            high = middle;
    }
    return inside(&regions[low], gpa, len) ? &regions[low] : NULL;
}

/* The region in which [gpa, gpa + len) begins, when it is all there: regions lie side by side. Else NULL. */
static const struct region *span(const struct region *hint, uint64_t gpa, uint64_t len)
{
    const struct region *first = find(hint, gpa, 1), *last = &regions[count - 1];
    return first && len <= last->base + last->size - gpa ? first : NULL;
}

static void *at(uint64_t gpa, uint64_t len)
{
    const struct region *r = find(regions, gpa, len);
    if (!r)
        errx(2, "ring at %#llx is outside the image", (unsigned long long)gpa);
    return r->host + (gpa - r->base);
}

static void mark(const struct region *r, uint64_t gpa, uint64_t len)
{
    if (!r->dirty || !len)
        return;
    uint64_t from = gpa - r->base;
    for (uint64_t page = from >> PAGE; page <= (from + len - 1) >> PAGE; page++)
        __atomic_fetch_or(&r->dirty[page >> 6], 1ull << (page & 63), __ATOMIC_RELEASE);
}

/* Memory between two pages that nothing may touch. */
static void *guarded(uint64_t bytes)
{
    uint64_t page = 1 << PAGE, whole = (bytes + page - 1) / page * page;
    uint8_t *all = mmap(NULL, whole + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + page, whole, PROT_READ | PROT_WRITE))
        err(2, "memory");
    return all + page + (whole - bytes);
}

/* Cut the image into regions of one size, each in a mapping of its own. */
static void load_image(const char *path, int bitmap)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        err(2, "%s", path);
    uint64_t part = st.st_size / count;
    for (uint64_t i = 0; i < count; i++) {
        void *host = guarded(part);
        if (pread(fd, host, part, i * part) != (ssize_t)part)
            err(2, "%s", path);
        regions[i] = (struct region){i * part, part, bitmap ? calloc((part >> (PAGE + 6)) + 1, 8) : NULL, host};
    }
    close(fd);
}
