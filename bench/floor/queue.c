/* The floor of a virtqueue: a split ring in one flat region, every word of the guest's checked, nothing else.
 *
 * queue IMAGE 1 BITMAP SIZE DESC AVAIL USED CHAINS EVENT_IDX; then, for each line on stdin, so many rounds, answered by
 * a line with the ns of one chain. A round takes all chains that the image's rings hold into arrays, as a device wants
 * them, gives each one back, and decides whether the driver must be told. The driver's part, a new index, is not timed. */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { NEXT = 1, WRITE = 2, INDIRECT = 4, PAGE = 12, MAX_SEGMENTS = 4096 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
struct avail {
    uint16_t flags, idx, ring[];
};
struct used {
    uint16_t flags, idx;
    struct { uint32_t id, len; } ring[];
};
struct segment {
    uint64_t addr;
    uint32_t len, writable;
};
struct chain {
    uint32_t first, count, head, written;
    uint64_t readable, writable;
};

static uint8_t *ram;
static uint64_t ram_size, used_at, *dirty;
static uint16_t size, event_idx, next_avail, next_used;
static const struct desc *table;
static struct avail *avail;
static struct used *used;
static struct segment segments[MAX_SEGMENTS];
static struct chain chains[1 << 15];

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void *at(uint64_t gpa, uint64_t len)
{
    if (gpa > ram_size || len > ram_size - gpa)
        errx(2, "ring at %#llx is outside the image", (unsigned long long)gpa);
    return ram + gpa;
}

static void mark(uint64_t from, uint64_t len)
{
    if (!dirty || !len)
        return;
    for (uint64_t page = from >> PAGE; page <= (from + len - 1) >> PAGE; page++)
        __atomic_fetch_or(&dirty[page >> 6], 1ull << (page & 63), __ATOMIC_RELEASE);
}

/* The two words of a descriptor, each read once: what is checked is what is used. */
static inline struct desc load(const struct desc *from)
{
    const volatile uint64_t *words = (const volatile uint64_t *)from;
    uint64_t addr = words[0], rest = words[1];
    return (struct desc){addr, (uint32_t)rest, (uint16_t)(rest >> 32), (uint16_t)(rest >> 48)};
}

/* Append the chain's buffers to `out` and fill `c`; -1 for a chain that breaks a rule. */
static inline int walk(uint16_t head, struct segment *out, uint32_t room, struct chain *c)
{
    const struct desc *t = table;
    uint32_t entries = size, index = head, visited = 0, writable = 0, n = 0;
    uint64_t sum = 0, readable = 0;

    for (;;) {
        if (index >= entries || visited++ == entries || n == room)
            return -1;
        struct desc d = load(&t[index]);
        if (d.addr > ram_size || d.len > ram_size - d.addr)
            return -1;
        if (d.flags & INDIRECT) {
            if (t != table || d.flags & NEXT || !d.len || d.len % sizeof d)
                return -1;
            t = (const struct desc *)(ram + d.addr);
            entries = d.len / sizeof d, index = 0, visited = 0;
            continue;
        }
        if (writable && !(d.flags & WRITE))
            return -1;
        writable = d.flags & WRITE;
        out[n++] = (struct segment){d.addr, d.len, !!writable};
        sum += d.len;
        readable += writable ? 0 : d.len;
        if (!(d.flags & NEXT))
            break;
        index = d.next;
    }
    c->head = head, c->count = n, c->written = 0;
    c->readable = readable, c->writable = sum - readable;
    return sum >> 32 ? -1 : 0;
}

static int pop_all(void)
{
    uint16_t idx = __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE), waiting = (uint16_t)(idx - next_avail);
    uint32_t filled = 0;
    int n = 0;

    if (waiting > size)
        errx(2, "%u chains available in a queue of %u", waiting, size);
    for (; n < waiting; n++, next_avail++) {
        uint16_t head = __atomic_load_n(&avail->ring[next_avail & (size - 1)], __ATOMIC_RELAXED);
        chains[n].first = filled;
        if (head >= size || walk(head, segments + filled, MAX_SEGMENTS - filled, &chains[n]))
            errx(2, "chain %u breaks a rule", head);
        filled += chains[n].count;
    }
    return n;
}

/* Give every chain back, then say whether the driver must be told. One index store and one round of marks for all. */
static int complete(int n)
{
    uint16_t first = next_used & (size - 1), word;
    int left = size - first, before_wrap = n < left ? n : left;

    for (int i = 0; i < n; i++) {
        uint16_t slot = (next_used + i) & (size - 1);
        if (chains[i].written > chains[i].writable)
            errx(2, "%u bytes written", chains[i].written);
        used->ring[slot].id = chains[i].head;
        used->ring[slot].len = chains[i].written;
    }
    next_used += n;
    __atomic_store_n(&used->idx, next_used, __ATOMIC_RELEASE);
    mark(used_at + 4 + 8 * first, 8 * before_wrap);
    mark(used_at + 4, 8 * (n - before_wrap));
    mark(used_at + 2, 2);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!event_idx)
        return !(__atomic_load_n(&avail->flags, __ATOMIC_RELAXED) & 1);
    word = __atomic_load_n(&avail->ring[size], __ATOMIC_RELAXED);
    return (uint16_t)(next_used - word - 1) < n;
}

static void load_image(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        err(2, "%s", path);
    ram_size = st.st_size;
    ram = mmap(NULL, ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ram == MAP_FAILED || read(fd, ram, ram_size) != (ssize_t)ram_size)
        err(2, "%s", path);
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc != 10 || atoi(argv[2]) != 1)
        errx(2, "usage: queue IMAGE 1 BITMAP SIZE DESC AVAIL USED CHAINS EVENT_IDX");
    load_image(argv[1]);
    if (atoi(argv[3]))
        dirty = calloc((ram_size >> (PAGE + 6)) + 1, sizeof *dirty);
    size = atoi(argv[4]), event_idx = atoi(argv[9]);
    int batch = atoi(argv[8]), popped = batch, wishes = 0;
    used_at = strtoull(argv[7], NULL, 0);
    table = at(strtoull(argv[5], NULL, 0), 16ull * size);
    avail = at(strtoull(argv[6], NULL, 0), 6 + 2ull * size);
    used = at(used_at, 6 + 8ull * size);

    for (unsigned long rounds; scanf("%lu", &rounds) == 1; fflush(stdout)) {
        uint64_t ns = 0;
        for (unsigned long i = 0; i < rounds && popped == batch; i++) {
            __atomic_store_n(&avail->idx, (uint16_t)(next_avail + batch), __ATOMIC_RELEASE);
            uint64_t start = now();
            popped = pop_all();
            wishes += complete(popped);
            ns += now() - start;
            __asm__ volatile("" ::"r"(segments), "r"(chains), "r"(wishes) : "memory");
        }
        if (popped != batch)
            errx(2, "%d chains popped of %d", popped, batch);
        printf("%f\n", (double)ns / ((double)rounds * batch));
    }
    return 0;
}
