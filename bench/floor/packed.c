/* The floor of a virtqueue: a packed ring, every word of the guest's checked, nothing else.
 *
 * packed IMAGE REGIONS BITMAP SIZE DESC AVAIL USED CHAINS EVENT_IDX; then, for each line on stdin, so many rounds, answered
 * by a line with the ns of one chain. The first lists of the image's ring, so many as CHAINS says, are what the driver makes
 * available in each round, each time further on in the ring; that is not timed. A round takes them into arrays, as a device
 * wants them, gives each one back, and decides whether the driver must be told. */
#include "guest.h"

enum { NEXT = 1, WRITE = 2, INDIRECT = 4, AVAIL = 1 << 7, USED = 1 << 15, STATE = AVAIL | USED };
enum { EVENT_DISABLE = 1, EVENT_DESC = 2, EVENT_KIND = 3, WRAP = 1 << 15 };

/* A place in the ring, and whether its lap is an odd one, as the first is. */
struct place {
    uint32_t slot, odd;
};

static struct place next_avail = {0, 1}, next_used = {0, 1}, driver = {0, 1};
static uint64_t (*ring)[2], (*rows)[2], ring_at; /* words: address; length, id and flags */
static const uint32_t *wish;
static uint16_t held[1 << 16]; /* descriptors of the list in flight, by its id */
static uint32_t size, busy, nrows;
static int event_idx;

static inline struct place move(struct place p, uint32_t by)
{
    p.slot += by;
    if (p.slot >= size)
        p.slot -= size, p.odd ^= 1;
    return p;
}

/* A list on its way into segments. */
struct list {
    struct segment *out;
    uint32_t room, n, writable;
    uint64_t sum, readable;
};

static inline int accept(struct list *l, uint64_t addr, uint32_t len, uint32_t writable, const struct region **hint)
{
    if (l->n == l->room || l->n == size || writable < l->writable)
        return -1;
    if (!inside(*hint, addr, len) && !(*hint = span(*hint, addr, len)))
        return -1;
    l->out[l->n++] = (struct segment){addr, len, writable / WRITE};
    l->sum += len;
    l->readable += writable ? 0 : len;
    l->writable = writable;
    return 0;
}

/* All entries of a table, one after the other; of their flags WRITE alone means something. */
static int table(struct list *l, uint64_t addr, uint32_t len, const struct region **hint)
{
    const struct region *r = find(*hint, addr, len);
    if (!r || !len || len % 16)
        return -1;
    const uint8_t *at = r->host + (addr - r->base), *end = at + len;
    for (; at != end; at += 16) {
        uint64_t words[2];
        memcpy(words, at, 16);
        __asm__ volatile("" ::: "memory"); /* no second look at what was copied */
        if (accept(l, words[0], (uint32_t)words[1], words[1] >> 48 & WRITE, hint))
            return -1;
    }
    return 0;
}

/* Append the buffers of the list at next_avail, whose second word is `word`, and fill `c`; its descriptors, -1 for a list
 * that breaks a rule. Each word is read once: what is checked is what is used. */
static inline int walk(uint64_t word, struct segment *out, uint32_t room, struct chain *c, const struct region **hint)
{
    struct list l = {.out = out, .room = room};
    uint32_t slot = next_avail.slot, taken = 0, flags;

    for (;;) {
        uint64_t addr = __atomic_load_n(&ring[slot][0], __ATOMIC_RELAXED);
        if (taken++ == size - busy)
            return -1; /* it runs into descriptors that the device has */
        flags = word >> 48;
        if (!(flags & INDIRECT) ? accept(&l, addr, (uint32_t)word, flags & WRITE, hint)
                                : taken != 1 || flags & NEXT || table(&l, addr, (uint32_t)word, hint))
            return -1;
        if (++slot == size)
            slot = 0;
        if (!(flags & NEXT))
            break;
        word = __atomic_load_n(&ring[slot][1], __ATOMIC_RELAXED);
    }
    c->head = (uint16_t)(word >> 32), c->count = l.n, c->written = 0;
    c->readable = l.readable, c->writable = l.sum - l.readable;
    return held[c->head] || l.sum > 1ull << 32 ? -1 : (int)taken;
}

static int pop_all(int most)
{
    const struct region *hint = regions;
    uint32_t filled = 0;
    int n = 0;

    for (; n < most; n++) {
        uint64_t word = __atomic_load_n(&ring[next_avail.slot][1], __ATOMIC_ACQUIRE);
        if ((word >> 48 & STATE) != (next_avail.odd ? AVAIL : USED))
            break;
        chains[n].first = filled;
        int taken = walk(word, segments + filled, MAX_SEGMENTS - filled, &chains[n], &hint);
        if (taken < 0)
            errx(2, "list at %u breaks a rule", next_avail.slot);
        held[chains[n].head] = taken;
        busy += taken;
        next_avail = move(next_avail, taken);
        filled += chains[n].count;
    }
    return n;
}

static uint64_t used_word(const struct chain *c, uint32_t odd)
{
    if (c->written > c->writable)
        errx(2, "%u bytes written", c->written);
    return (uint64_t)((odd ? STATE : 0) | (c->written ? WRITE : 0)) << 48 | (uint64_t)c->head << 32 | c->written;
}

/* Did next_used pass the event since `passed` descriptors ago? Positions repeat after two laps. */
static int passed_event(uint16_t event, uint32_t passed)
{
    uint32_t laps = 2 * size, here = next_used.slot + (next_used.odd ? size : 0);
    uint32_t there = (event & ~WRAP) + (event & WRAP ? size : 0);
    return (here + laps - there - 1) % laps < passed;
}

/* Give every list back, the first one last, then say whether the driver must be told. One round of marks for all. */
static int complete(int n)
{
    struct place first = next_used;
    uint32_t passed = 0, left = size - first.slot;

    for (int i = 0; i < n; i++) {
        uint32_t slots = held[chains[i].head];
        if (i)
            __atomic_store_n(&ring[next_used.slot][1], used_word(&chains[i], next_used.odd), __ATOMIC_RELAXED);
        held[chains[i].head] = 0;
        passed += slots;
        next_used = move(next_used, slots);
    }
    busy -= passed;
    __atomic_store_n(&ring[first.slot][1], used_word(&chains[0], first.odd), __ATOMIC_RELEASE);
    const struct region *r = find(regions, ring_at, 16ull * size); /* it was there when `at` looked */
    mark(r, ring_at + 16 * first.slot, 16 * (passed < left ? passed : left));
    mark(r, ring_at, passed < left ? 0 : 16 * (passed - left));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint32_t word = __atomic_load_n(wish, __ATOMIC_RELAXED), kind = word >> 16 & EVENT_KIND;
    if (kind == EVENT_DISABLE)
        return 0;
    return kind != EVENT_DESC || !event_idx || (word & 0x7FFF) >= size || passed_event((uint16_t)word, passed);
}

/* What the driver does in a round: its lists again, from where it stands, the first descriptor last. */
static void offer(void)
{
    struct place p = driver;
    uint64_t first = 0;
    for (uint32_t i = 0; i < nrows; i++, p = move(p, 1)) {
        uint64_t word = rows[i][1] | (uint64_t)(p.odd ? AVAIL : USED) << 48;
        ring[p.slot][0] = rows[i][0];
        if (i)
            ring[p.slot][1] = word;
        else
            first = word;
    }
    __atomic_store_n(&ring[driver.slot][1], first, __ATOMIC_RELEASE);
    driver = p;
}

/* The first lists of the image; all of it, when there are fewer. */
static void read_rows(int lists)
{
    rows = calloc(size, 16);
    for (nrows = 0; nrows < size && lists; nrows++) {
        rows[nrows][0] = ring[nrows][0];
        rows[nrows][1] = ring[nrows][1] & ~((uint64_t)STATE << 48);
        lists -= !(rows[nrows][1] >> 48 & NEXT);
    }
    memset(ring, 0, 16ull * size);
}

int main(int argc, char **argv)
{
    if (argc != 10 || (count = atoi(argv[2])) < 1 || count > MAX_REGIONS)
        errx(2, "usage: packed IMAGE REGIONS BITMAP SIZE DESC AVAIL USED CHAINS EVENT_IDX");
    load_image(argv[1], atoi(argv[3]));
    size = atoi(argv[4]), event_idx = atoi(argv[9]);
    int batch = atoi(argv[8]), popped = batch, wishes = 0;
    ring_at = strtoull(argv[5], NULL, 0);
    ring = at(ring_at, 16ull * size);
    wish = at(strtoull(argv[6], NULL, 0), 4);
    at(strtoull(argv[7], NULL, 0), 4); /* ours: the floor asks for nothing */
    read_rows(batch);

    for (unsigned long rounds; scanf("%lu", &rounds) == 1; fflush(stdout)) {
        uint64_t ns = 0;
        for (unsigned long i = 0; i < rounds && popped == batch; i++) {
            offer();
            uint64_t start = now();
            popped = pop_all(batch);
            wishes += popped ? complete(popped) : 0;
            ns += now() - start;
            __asm__ volatile("" ::"r"(segments), "r"(chains), "r"(wishes) : "memory");
        }
        if (popped != batch)
            errx(2, "%d chains popped of %d", popped, batch);
        printf("%f\n", (double)ns / ((double)rounds * batch));
    }
    return 0;
}
