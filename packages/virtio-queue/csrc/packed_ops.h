/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Private to core.c: what a device does with a packed ring. Rules: VIRTIO 1.2 section 2.8. */
#ifndef VIRTQ_PACKED_OPS_H
#define VIRTQ_PACKED_OPS_H

#include "packed_plain.h"

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

/* Descriptors of a completion, written one after the other in the ring and not yet marked: slots first to last. */
struct used_run {
	const struct vmm_region *region; /* of the ring, when its pages are tracked */
	uint64_t start;                  /* of the ring in it */
	uint32_t first, last;
	uint64_t step; /* at most so far from one descriptor to the next, without a whole page between them; any, untracked */
};

static inline void run_open(const struct rings *r, uint32_t slot, struct used_run *ret)
{
	*ret = (struct used_run){.first = slot, .last = slot, .step = UINT64_MAX};
	ret->region = r->desc.host == NULL ? NULL : vmm_find(r->desc.map, r->desc.gpa);
	if (ret->region != NULL && ret->region->dirty == NULL)
		ret->region = NULL;
	if (ret->region == NULL)
		return;
	ret->start = r->desc.gpa - ret->region->base;
	ret->step = (UINT64_C(1) << ret->region->dirty_shift) / DESC_BYTES;
	ret->step += ret->step == 0;
}

/* Marked after the stores: a harvester that clears a bit in between will find it set again. */
static inline void run_mark(const struct used_run *run)
{
	vmm_region_mark_dirty(run->region, run->start + (uint64_t)run->first * DESC_BYTES,
			      (uint64_t)(run->last - run->first + 1) * DESC_BYTES);
}

/* A descriptor was written: the next of the run, or the first of another one, behind a gap or the ring's end. */
static inline void run_add(struct used_run *run, uint32_t slot)
{
	if (__builtin_expect(slot - run->last > run->step, 0)) {
		run_mark(run);
		run->first = slot;
	}
	run->last = slot;
}

/* Length, id and flags, of which `state` has those of the lap. Element length is valid only with WRITE, which says that
 * something was written (2.8.3, 2.8.4). */
static inline uint64_t used_word(uint64_t state, uint16_t id, uint32_t written)
{
	uint64_t write = MUTANT(PACKED_WRITE_FLAG, written != 0, 1) ? (uint64_t)DESC_WRITE << 48 : 0;

	return state | write | (uint64_t)id << 32 | written;
}

static inline void put_packed(const struct rings *r, uint32_t slot, uint16_t lap, uint16_t id, uint32_t written, int order)
{
	uint64_t offset = (uint64_t)slot * DESC_BYTES + PACKED_WORD, state = (uint64_t)used_state(lap) << 48;
	uint64_t word = used_word(state, MUTANT(PACKED_ID_SLOT, id, (uint16_t)slot), written);

	if (__builtin_expect(r->desc.host != NULL, 1)) {
		/* SAFETY: as for store16; rings_open keeps only pointers that are aligned for whole descriptors. */
		if (order == __ATOMIC_RELEASE)
			__atomic_store_n((vmm_u64_alias *)(r->desc.host + offset), word, __ATOMIC_RELEASE);
		else
			__atomic_store_n((vmm_u64_alias *)(r->desc.host + offset), word, __ATOMIC_RELAXED);
		return;
	}
	store32(&r->desc, offset, (uint32_t)word);
	store16(&r->desc, offset + 4, __ATOMIC_RELAXED, (uint16_t)(word >> 32));
	store16(&r->desc, offset + 6, order, (uint16_t)(word >> 48));
}

/* Put chains from *slot on for as long as neither the ring nor the run of marks ends: all but a few. The one it came to. */
static inline const struct virtio_chain *put_plain(uint8_t *ring, const struct virtq_held *held, uint32_t size, uint16_t lap,
						   const struct virtio_chain *c, const struct virtio_chain *end,
						   uint32_t *slot, struct used_run *run)
{
	uint32_t at = *slot, last = run->last, slots;
	uint64_t step = run->step, state = (uint64_t)used_state(lap) << 48;

	for (; c != end; c++) {
		slots = MUTANT(PACKED_SKIP_ONE, held[c->head].chosen, 1);
		if (slots >= size - at || slots > step)
			break;
		/* SAFETY: as in put_packed; at is below size. */
		__atomic_store_n((vmm_u64_alias *)(ring + (uint64_t)at * DESC_BYTES + PACKED_WORD),
				 used_word(state, MUTANT(PACKED_ID_SLOT, c->head, (uint16_t)at), c->written), __ATOMIC_RELAXED);
		last = at;
		at += slots;
	}
	run->last = last;
	*slot = at;
	return c;
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
	const struct virtq_held *held = q->held;
	uint32_t start = slot_of(q->next_used), slot = start, next = start, passed = 0, slots, size = r->size;
	uint16_t lap = q->next_used & VIRTQ_WRAP, next_lap = lap;
	int plain = r->desc.host != NULL && !(q->flags & VIRTQ_IN_ORDER);
	struct used_run run;

	run_open(r, start, &run);
	for (; c != end; c++) {
		if (plain && first != NULL && slot - run.last <= run.step) {
			c = put_plain(r->desc.host, held, size, lap, c, end, &next, &run);
			passed += next - slot;
			slot = next;
			if (c == end)
				break;
		}
		slots = MUTANT(PACKED_SKIP_ONE, held[c->head].chosen, 1);
		passed += slots;
		/* As packed_move. */
		next += slots;
		if (next >= size) {
			next -= size;
			next_lap ^= VIRTQ_WRAP;
		}
		if (spoken_for(q, c, end))
			continue;
		if (first == NULL) {
			first = c;
		} else {
			put_packed(r, slot, lap, c->head, c->written, __ATOMIC_RELAXED);
			run_add(&run, slot);
		}
		slot = next;
		lap = next_lap;
	}
	/* FENCE packed-used: release. All other used descriptors, and the data in the buffers, are visible before the flags
	 * of the first one, which is the only one that the driver looks at; what was read from the buffers was read before. */
	put_packed(r, start, q->next_used & VIRTQ_WRAP, first->head, first->written, __ATOMIC_RELEASE);
	if (MUTANT(PACKED_CLEAN, run.region != NULL, 0)) {
		run_mark(&run);
		/* Its run may have been marked before it was written. */
		run.first = run.last = start;
		run_mark(&run);
	}
	packed_advance(q, (uint16_t)(slot | lap), b->nchains, passed);
}

/* Is every chain of the batch in flight, and none of them twice? Then they are taken out: `chosen` is what was `slots`.
 * -EINVAL: not, and all is as it was. */
static int packed_check(struct virtq *q, const struct virtio_batch *b)
{
	const struct virtio_chain *c = b->chains, *end = b->chains + b->nchains;
	struct virtq_held *held = q->held;
	uint32_t ids = q->ids;

	for (; c != end; c++) {
		if (c->head >= ids || held[c->head].slots == 0 || c->written > c->writable)
			break;
		held[c->head].chosen = held[c->head].slots;
		held[c->head].slots = 0;
	}
	if (c == end)
		return 0;
	while (c-- != b->chains)
		held[c->head].slots = held[c->head].chosen;
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
