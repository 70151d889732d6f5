/* The floor of a virtqueue: a split ring, every word of the guest's checked, nothing else.
 *
 * queue IMAGE REGIONS BITMAP SIZE DESC AVAIL USED CHAINS EVENT_IDX [gather|scatter BYTES]; then, for each line on stdin, so
 * many rounds, answered by a line with the ns of one chain. A round takes all chains that the image's rings hold into
 * arrays, as a device wants them, gives each one back, and decides whether the driver must be told. The driver's part, a
 * new index, is not timed. With a way, BYTES of each chain are copied between its buffers and one buffer for all of them. */
#include "guest.h"

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum way { NOTHING, GATHER, SCATTER };

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
static uint64_t used_at;
static uint16_t size, event_idx, next_avail, next_used;
static const struct desc *table;
static struct avail *avail;
static struct used *used;

/* The two words of a descriptor, each read once: what is checked is what is used. */
static inline struct desc load(const struct desc *from)
{
    const volatile uint64_t *words = (const volatile uint64_t *)from;
    uint64_t addr = words[0], rest = words[1];
    return (struct desc){addr, (uint32_t)rest, (uint16_t)(rest >> 32), (uint16_t)(rest >> 48)};
}

/* Append the chain's buffers to `out` and fill `c`; -1 for a chain that breaks a rule. */
static inline int walk(uint16_t head, struct segment *out, uint32_t room, struct chain *c, const struct region **hint)
{
    const struct desc *t = table;
    const struct region *r = *hint;
    uint32_t entries = size, index = head, visited = 0, writable = 0, n = 0;
    uint64_t sum = 0, readable = 0;

    for (;;) {
        if (index >= entries || visited++ == entries || n == room)
            return -1;
        struct desc d = load(&t[index]);
        if (d.flags & INDIRECT) {
            if (t != table || d.flags & NEXT || !d.len || d.len % sizeof d || !(r = find(r, d.addr, d.len)))
                return -1;
            t = (const struct desc *)(r->host + (d.addr - r->base));
            entries = d.len / sizeof d, index = 0, visited = 0;
            continue;
        }
        if (writable && !(d.flags & WRITE))
            return -1;
        if (!inside(r, d.addr, d.len) && !(r = span(r, d.addr, d.len)))
            return -1;
        writable = d.flags & WRITE;
        out[n++] = (struct segment){d.addr, d.len, !!writable};
        sum += d.len;
        readable += writable ? 0 : d.len;
        if (!(d.flags & NEXT))
            break;
        index = d.next;
    }
    *hint = r;
    c->head = head, c->count = n, c->written = 0;
    c->readable = readable, c->writable = sum - readable;
    return sum >> 32 ? -1 : 0;
}

static int pop_all(void)
{
    uint16_t idx = __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE), waiting = (uint16_t)(idx - next_avail);
    const struct region *hint = regions;
    uint32_t filled = 0;
    int n = 0;

    if (waiting > size)
        errx(2, "%u chains available in a queue of %u", waiting, size);
    for (; n < waiting; n++, next_avail++) {
        uint16_t head = __atomic_load_n(&avail->ring[next_avail & (size - 1)], __ATOMIC_RELAXED);
        chains[n].first = filled;
        if (head >= size || walk(head, segments + filled, MAX_SEGMENTS - filled, &chains[n], &hint))
            errx(2, "chain %u breaks a rule", head);
        filled += chains[n].count;
    }
    return n;
}

/* Copy `bytes` of each chain between its buffers and its part of `buffer`. Segments were checked when they were popped. */
static void copy(int n, enum way way, uint8_t *buffer, uint64_t bytes)
{
    const struct region *r = regions;
    for (int i = 0; i < n; i++, buffer += bytes) {
        const struct segment *s = segments + chains[i].first, *end = s + chains[i].count;
        uint64_t done = 0;
        if ((way == GATHER ? chains[i].readable : chains[i].writable) < bytes)
            errx(2, "chain %u has too few bytes", chains[i].head);
        for (; s != end && done != bytes; s++) {
            uint64_t left = s->len < bytes - done ? s->len : bytes - done, gpa = s->addr;
            if (s->writable != (way == SCATTER))
                continue;
            while (left) {
                r = find(r, gpa, 1);
                uint64_t offset = gpa - r->base, part = left < r->size - offset ? left : r->size - offset;
                if (way == GATHER) {
                    memcpy(buffer + done, r->host + offset, part);
                } else {
                    memcpy(r->host + offset, buffer + done, part);
                    mark(r, gpa, part);
                }
                done += part, gpa += part, left -= part;
            }
        }
        chains[i].written = way == SCATTER ? bytes : 0;
    }
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
    const struct region *r = find(regions, used_at, 6 + 8ull * size); /* it was there when `at` looked */
    mark(r, used_at + 4 + 8 * first, 8 * before_wrap);
    mark(r, used_at + 4, 8 * (n - before_wrap));
    mark(r, used_at + 2, 2);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!event_idx)
        return !(__atomic_load_n(&avail->flags, __ATOMIC_RELAXED) & 1);
    word = __atomic_load_n(&avail->ring[size], __ATOMIC_RELAXED);
    return (uint16_t)(next_used - word - 1) < n;
}

int main(int argc, char **argv)
{
    if ((argc != 10 && argc != 12) || (count = atoi(argv[2])) < 1 || count > MAX_REGIONS)
        errx(2, "usage: queue IMAGE REGIONS BITMAP SIZE DESC AVAIL USED CHAINS EVENT_IDX [gather|scatter BYTES]");
    load_image(argv[1], atoi(argv[3]));
    size = atoi(argv[4]), event_idx = atoi(argv[9]);
    int batch = atoi(argv[8]), popped = batch, wishes = 0;
    used_at = strtoull(argv[7], NULL, 0);
    table = at(strtoull(argv[5], NULL, 0), 16ull * size);
    avail = at(strtoull(argv[6], NULL, 0), 6 + 2ull * size);
    used = at(used_at, 6 + 8ull * size);
    enum way way = argc == 10 ? NOTHING : *argv[10] == 'g' ? GATHER : SCATTER;
    uint64_t bytes = way ? strtoull(argv[11], NULL, 0) : 0;
    uint8_t *buffer = aligned_alloc(4096, (batch * bytes + 4096) & ~4095ull);
    memset(buffer, 1, batch * bytes); /* else all of it is the kernel's one page of zeros, which is always in the cache */

    for (unsigned long rounds; scanf("%lu", &rounds) == 1; fflush(stdout)) {
        uint64_t ns = 0;
        for (unsigned long i = 0; i < rounds && popped == batch; i++) {
            __atomic_store_n(&avail->idx, (uint16_t)(next_avail + batch), __ATOMIC_RELEASE);
            uint64_t start = now();
            popped = pop_all();
            if (way)
                copy(popped, way, buffer, bytes);
            wishes += complete(popped);
            ns += now() - start;
            __asm__ volatile("" ::"r"(segments), "r"(chains), "r"(wishes), "r"(buffer) : "memory");
        }
        if (popped != batch)
            errx(2, "%d chains popped of %d", popped, batch);
        printf("%f\n", (double)ns / ((double)rounds * batch));
    }
    return 0;
}
