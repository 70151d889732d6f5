/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Private to core.c: what a device does with a packed ring. Rules: VIRTIO 1.2 section 2.8. */
#ifndef VIRTQ_PACKED_OPS_H
#define VIRTQ_PACKED_OPS_H

#include "packed.h"

static int packed_pop_one(const struct rings *r, struct virtq *q, struct virtio_batch *b, const struct vmm_region **hint)
{
	struct virtio_chain *c = &b->chains[b->nchains];
	struct list l = {.segs = b->segs + b->nsegs, .room = b->max_segs - b->nsegs};
	int rc;

	/* FENCE packed-avail: acquire. The rest of this descriptor, those after it in its list, and the buffers are read
	 * after its flags, which the driver wrote last. */
	if (!packed_offered(r, q->next_avail, __ATOMIC_ACQUIRE))
		return NOTHING;
	/* Every descriptor is with us already: a driver that offers one again would have us hold ever more. */
	if (packed_free(q, r->size) == 0)
		return break_queue(q, fault(q, VIRTQ_E_AVAILABLE, VIRTQ_NO_HEAD, 0, 1, 0));
	*c = (struct virtio_chain){.first_seg = b->nsegs};
	rc = packed_walk(r, q, &l, hint, c);
	if (rc != 0)
		return rc;
	b->nsegs += c->nsegs;
	b->nchains++;
	return 0;
}

/* What the short way needs to know, in registers: stores into the batch could alias anything in memory. */
struct packed_plain {
	const vmm_u64_alias *table;
	uint64_t base, bytes; /* the region in which all buffers must lie */
	uint32_t size, refused; /* flags that it leaves to packed_walk */
};

static inline int packed_plain_open(const struct rings *r, const struct vmm_region *region, struct packed_plain *ret)
{
	if (region == NULL || r->desc.host == NULL)
		return 0;
	*ret = (struct packed_plain){
		.table = (const vmm_u64_alias *)r->desc.host,
		.base = region->base,
		.bytes = region->size,
		.size = r->size,
		.refused = DESC_INDIRECT | (region->flags & VMM_REGION_READONLY ? DESC_WRITE : 0),
	};
	return 1;
}

/* A list as nearly all are: direct, sound, in one region. `rest` is the second word of its first descriptor, at slot;
 * at most `most` descriptors. Its number of segments, and its id; 0 for any other, of which nothing was taken. */
static inline uint32_t packed_plain_list(const struct packed_plain *p, uint32_t slot, uint64_t rest, uint32_t most,
					 struct virtio_seg *segs, struct virtio_chain *c)
{
	uint32_t n = 0, was_writable = 0, writable, len, flags;
	uint64_t sum = 0, readable = 0, addr;

	for (;;) {
		/* SAFETY: span_open found all descriptors of the ring at host, aligned, and slot is below their number. Atomic,
		 * so that each word is read once: what is checked is what is used. */
		addr = __atomic_load_n(&p->table[2 * (uint64_t)slot], __ATOMIC_RELAXED);
		len = (uint32_t)rest;
		flags = (uint32_t)(rest >> 48);
		writable = flags & DESC_WRITE;
		if (n == most || (flags & p->refused) || writable < was_writable || addr - p->base >= p->bytes ||
		    len > p->bytes - (addr - p->base))
			return 0;
		segs[n++] = (struct virtio_seg){.addr = addr, .len = len, .writable = writable / DESC_WRITE};
		sum += len;
		readable += writable ? 0 : len;
		was_writable = writable;
		if (!(flags & DESC_NEXT))
			break;
		slot = slot + 1 == p->size ? MUTANT(PACKED_LIST_END, 0, slot) : slot + 1;
		rest = __atomic_load_n(&p->table[2 * (uint64_t)slot + 1], __ATOMIC_RELAXED);
	}
	if (sum > CHAIN_MAX_BYTES)
		return 0;
	c->nsegs = (uint16_t)n;
	c->head = (uint16_t)(rest >> 32);
	c->readable = readable;
	c->writable = sum - readable;
	return n;
}

/* Take plain lists for as long as they come. What changes is in locals: every store into the batch could alias it. */
static void __attribute__((noinline)) packed_pop_plain(const struct rings *r, struct virtq *q, struct virtio_batch *b,
						       const struct vmm_region *region, uint64_t *bytes)
{
	uint32_t first = b->nsegs, room = b->max_segs - first, size = r->size, free = packed_free(q, size), n;
	uint32_t slot = slot_of(q->next_avail), wrap = q->next_avail & VIRTQ_WRAP, popped = q->popped, mask = q->order_mask;
	struct virtio_chain *c = b->chains + b->nchains, *end = b->chains + b->max_chains;
	struct virtq_held *held = q->held;
	uint16_t *order = q->order;
	uint64_t total = *bytes, rest;
	struct packed_plain p;

	if (!packed_plain_open(r, region, &p))
		return;
	for (; c != end && total < VIRTQ_BATCH_BYTES; c++, popped++) {
		/* SAFETY: as in packed_plain_list. FENCE packed-avail: acquire, as in packed_pop_one. */
		rest = __atomic_load_n(&p.table[2 * (uint64_t)slot + 1], __ATOMIC_ACQUIRE);
		if ((rest >> 48 & PACKED_STATE) != available_state((uint16_t)wrap))
			break;
		n = packed_plain_list(&p, slot, rest, free < room ? free : room, b->segs + first, c);
		if (n == 0 || c->head >= q->ids || MUTANT(PACKED_ID_TWICE, held[c->head].slots != 0, 0))
			break;
		/* As packed_take. */
		held[c->head] = (struct virtq_held){.order = popped, .slots = (uint16_t)n};
		order[popped & mask] = c->head;
		slot += MUTANT(PACKED_WHOLE_LAP, n, n % size);
		wrap ^= MUTANT(PACKED_AVAIL_WRAP, slot >= size, 0) ? VIRTQ_WRAP : 0;
		slot -= slot >= size ? size : 0;
		c->first_seg = first;
		c->written = 0;
		c->error = 0;
		first += n;
		room -= n;
		free -= n;
		total += c->readable + c->writable;
	}
	q->in_flight += popped - q->popped;
	q->popped = popped;
	q->busy += first - b->nsegs;
	q->next_avail = (uint16_t)(slot | wrap);
	b->nsegs = first;
	b->nchains = (uint32_t)(c - b->chains);
	*bytes = total;
}

static int packed_pop_batch(const struct rings *r, struct virtq *q, struct virtio_batch *b)
{
	const struct vmm_region *hint = NULL;
	uint64_t bytes = 0;
	int rc = 0;

	while (b->nchains < b->max_chains && bytes < VIRTQ_BATCH_BYTES) {
		rc = packed_pop_one(r, q, b, &hint);
		if (rc != 0)
			break;
		bytes += b->chains[b->nchains - 1].readable + b->chains[b->nchains - 1].writable;
		packed_pop_plain(r, q, b, hint, &bytes);
	}
	/* Chains popped before the queue broke are good and are delivered; the next call reports the breakage. */
	return rc == NO_ROOM || rc == NOTHING || b->nchains != 0 ? 0 : rc;
}

/* Give the last `count` lists back; -EINVAL, and nothing is changed, when one of them is complete. */
static int packed_undo(struct virtq *q, uint32_t count)
{
	if (count > q->in_flight)
		return -EINVAL;
	for (uint32_t back = 1; back <= count; back++) {
		const struct virtq_held *h = &q->held[q->order[(q->popped - back) & q->order_mask]];

		if (h->slots == 0 || h->order != q->popped - back)
			return -EINVAL;
	}
	for (; count != 0; count--) {
		struct virtq_held *h = &q->held[q->order[--q->popped & q->order_mask]];

		q->next_avail = packed_back(q->next_avail, h->slots, q->size);
		q->busy -= h->slots;
		q->in_flight--;
		h->slots = 0;
	}
	return 0;
}

/* The descriptors of a completion, written one after the other; the first one last. */
struct used_run {
	const struct vmm_region *region; /* of the ring, when its pages are tracked */
	uint64_t start, end;             /* bytes of it that were written and not yet marked */
};

static inline void run_open(const struct rings *r, struct used_run *ret)
{
	*ret = (struct used_run){.region = r->desc.host == NULL ? NULL : vmm_find(r->desc.map, r->desc.gpa)};
	if (ret->region != NULL && ret->region->dirty == NULL)
		ret->region = NULL;
}

/* Marked after the stores: a harvester that clears a bit in between will find it set again. */
static inline void run_mark(const struct used_run *run)
{
	if (run->end != run->start)
		vmm_region_mark_dirty(run->region, run->start, run->end - run->start);
}

/* A descriptor was written: one more of the run, or the first of another when whole pages lie between them. */
static inline void run_add(const struct rings *r, struct used_run *run, uint32_t slot)
{
	uint64_t start;

	if (run->region == NULL)
		return;
	start = r->desc.gpa - run->region->base + (uint64_t)slot * DESC_BYTES;
	if (start < run->end || (run->end != run->start && start >> run->region->dirty_shift >
								    ((run->end - 1) >> run->region->dirty_shift) + 1)) {
		run_mark(run);
		run->start = start;
	} else if (run->end == run->start) {
		run->start = start;
	}
	run->end = start + DESC_BYTES;
}

/* Element length is valid only with WRITE, which says that something was written (2.8.3, 2.8.4). */
static inline void put_packed(const struct rings *r, uint16_t position, uint16_t id, uint32_t written, int order)
{
	uint64_t offset = (uint64_t)slot_of(position) * DESC_BYTES + PACKED_WORD;
	uint32_t flags = used_state(position) | (MUTANT(PACKED_WRITE_FLAG, written != 0, 1) ? DESC_WRITE : 0);

	id = MUTANT(PACKED_ID_SLOT, id, (uint16_t)slot_of(position));
	if (__builtin_expect(r->desc.host != NULL, 1)) {
		uint64_t word = (uint64_t)flags << 48 | (uint64_t)id << 32 | written;

		/* SAFETY: as for store16; rings_open keeps only pointers that are aligned for whole descriptors. */
		if (order == __ATOMIC_RELEASE)
			__atomic_store_n((vmm_u64_alias *)(r->desc.host + offset), word, __ATOMIC_RELEASE);
		else
			__atomic_store_n((vmm_u64_alias *)(r->desc.host + offset), word, __ATOMIC_RELAXED);
		return;
	}
	store32(&r->desc, offset, written);
	store16(&r->desc, offset + 4, __ATOMIC_RELAXED, id);
	store16(&r->desc, offset + 6, order, (uint16_t)flags);
}

static void packed_advance(struct virtq *q, uint16_t position, uint32_t chains, uint32_t slots)
{
	q->busy -= slots;
	q->in_flight -= chains;
	q->counters.chains += chains;
	q->counters.wraps += ((q->next_used ^ position) & VIRTQ_WRAP) != 0;
	slots = MUTANT(PACKED_COUNTS_CHAINS, slots, chains);
	q->next_used = MUTANT(PACKED_USED_WRAP, position, (position & ~VIRTQ_WRAP) | (q->next_used & VIRTQ_WRAP));
	q->num_added = q->num_added + slots > 65536u ? 65536u : q->num_added + slots;
}

/* Publish the lists of a batch of at least one, which packed_check has accepted. */
static void packed_publish(const struct rings *r, struct virtq *q, const struct virtio_batch *b)
{
	const struct virtio_chain *c = b->chains, *end = b->chains + b->nchains, *first = NULL;
	struct virtq_held *held = q->held;
	uint32_t passed = 0, slots, size = r->size;
	uint16_t position = q->next_used, next = position;
	struct used_run run, first_run;

	run_open(r, &run);
	first_run = run;
	for (; c != end; c++) {
		slots = MUTANT(PACKED_SKIP_ONE, held[c->head].slots, 1);
		held[c->head] = (struct virtq_held){0};
		passed += slots;
		next = packed_move(next, slots, size);
		if (spoken_for(q, c, end))
			continue;
		if (first == NULL) {
			first = c;
			run_add(r, &first_run, slot_of(position));
		} else {
			put_packed(r, position, c->head, c->written, __ATOMIC_RELAXED);
			run_add(r, &run, slot_of(position));
		}
		position = next;
	}
	/* FENCE packed-used: release. All other used descriptors, and the data in the buffers, are visible before the flags
	 * of the first one, which is the only one that the driver looks at; what was read from the buffers was read before. */
	put_packed(r, q->next_used, first->head, first->written, __ATOMIC_RELEASE);
	if (MUTANT(PACKED_CLEAN, run.region != NULL, 0)) {
		run_mark(&first_run);
		run_mark(&run);
	}
	packed_advance(q, position, b->nchains, passed);
}

/* Is every chain of the batch in flight, and none of them twice? */
static int packed_check(struct virtq *q, const struct virtio_batch *b)
{
	const struct virtio_chain *c = b->chains, *end = b->chains + b->nchains;
	struct virtq_held *held = q->held;
	uint32_t ids = q->ids;

	for (; c != end; c++) {
		if (c->head >= ids || held[c->head].slots == 0 || held[c->head].chosen || c->written > c->writable)
			break;
		held[c->head].chosen = 1;
	}
	if (c == end)
		return 0;
	while (c-- != b->chains)
		held[c->head].chosen = 0;
	return -EINVAL;
}

static int packed_decide(const struct rings *r, struct virtq *q)
{
	uint32_t added = q->num_added, word, behind, laps = 2u * r->size;
	uint16_t event;
	int notify;

	/* FENCE packed-decide: full, store -> load. The used descriptors are visible before the driver's wish is read. The
	 * driver does the mirror image (writes its wish, fence, reads the flags of the next used descriptor). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	word = load32(&r->avail);
	event = (uint16_t)word;
	word = word >> 16 & EVENT_KIND;
	if (word == EVENT_DISABLE) {
		notify = MUTANT(PACKED_SILENCE, 0, added != 0);
	} else if (word != EVENT_DESC || MUTANT(PACKED_EVENT_UNASKED, !(q->flags & VIRTQ_EVENT_IDX), 0) || slot_of(event) >= r->size) {
		/* Where the wish means nothing too: an interrupt too many is harmless. */
		notify = added != 0;
	} else {
		/* 2.8.10: did next_used pass the event since the last decision? Positions repeat after two laps, in which each
		 * pair of slot and wrap counter occurs once; after so many descriptors every event was passed. */
		behind = lap_of(q->next_used, r->size) + laps - lap_of(event, r->size) - 1u;
		notify = MUTANT(PACKED_EVENT_FLAT, behind < laps ? behind : behind - laps, (uint16_t)(q->next_used - event - 1)) < added;
	}
	q->counters.notified += notify != 0;
	q->counters.suppressed += notify == 0 && added != 0;
	q->num_added = MUTANT(PACKED_EVENT_REPEAT, 0, added);
	return notify;
}

/* One word, so that the driver never sees the offset of one wish with the flags of another. */
static void packed_wish(const struct rings *r, uint32_t flags, uint16_t position)
{
	/* Relaxed: a hint to the driver; where its order matters, a fence follows. */
	store32(&r->used, 0, flags << 16 | position);
	vmm_mark_dirty(r->used.map, r->used.gpa, EVENT_BYTES);
}

static int packed_enable(const struct rings *r, struct virtq *q)
{
	int event_idx = (q->flags & VIRTQ_EVENT_IDX) != 0;

	packed_wish(r, event_idx ? EVENT_DESC : 0, event_idx ? q->next_avail : 0);
	/* FENCE packed-enable: full, store -> load. The wish for a kick is visible before the next descriptor is looked at
	 * again. The driver makes it available, fence, reads the wish; so either it kicks, or we see it here. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	/* Relaxed: only compared here; the pop that follows loads it again with acquire. */
	return MUTANT(PACKED_NO_RECHECK, packed_offered(r, q->next_avail, __ATOMIC_RELAXED), 0);
}

#endif
