/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Private to core.c: lists of a packed ring as nearly all are, many in one go. What it does not take, packed_walk does. */
#ifndef VIRTQ_PACKED_PLAIN_H
#define VIRTQ_PACKED_PLAIN_H

#include "packed.h"

/* What the short way needs to know, in registers: stores into the batch could alias anything in memory. */
struct packed_plain {
	const vmm_u64_alias *table, *end;
	uint64_t base, bytes; /* the region in which all buffers must lie */
	uint32_t refused; /* flags that it leaves to packed_walk */
};

static inline int packed_plain_open(const struct rings *r, const struct vmm_region *region, struct packed_plain *ret)
{
	if (region == NULL || r->desc.host == NULL)
		return 0;
	*ret = (struct packed_plain){
		.table = (const vmm_u64_alias *)r->desc.host,
		.end = (const vmm_u64_alias *)r->desc.host + 2 * (size_t)r->size,
		.base = region->base,
		.bytes = region->size,
		.refused = DESC_INDIRECT | (region->flags & VMM_REGION_READONLY ? DESC_WRITE : 0),
	};
	return 1;
}

/* A list as nearly all are: direct, sound, in one region. `rest` is the second word of its first descriptor, which is at
 * `at`; at most as many segments as there are up to `limit`. Where the next one begins, and its bytes are added to *total;
 * NULL for any other, of which nothing was taken. */
static inline const vmm_u64_alias *packed_plain_list(const struct packed_plain *p, const vmm_u64_alias *at, uint64_t rest,
						     struct virtio_seg *segs, const struct virtio_seg *limit,
						     struct virtio_chain *c, uint64_t *total)
{
	const struct virtio_seg *first = segs;
	const vmm_u64_alias *next;
	uint32_t was_writable = 0, writable, len, flags;
	uint64_t sum = 0, readable = 0, addr;

	for (;;) {
		/* SAFETY: span_open found all descriptors of the ring at host, aligned, and `at` goes round among them. Atomic,
		 * so that each word is read once: what is checked is what is used. */
		addr = __atomic_load_n(at, __ATOMIC_RELAXED);
		len = (uint32_t)rest;
		flags = (uint32_t)(rest >> 48);
		writable = flags & DESC_WRITE;
		if (segs == limit || (flags & p->refused) || writable < was_writable || addr - p->base >= p->bytes ||
		    len > p->bytes - (addr - p->base))
			return NULL;
		*segs++ = (struct virtio_seg){.addr = addr, .len = len, .writable = writable / DESC_WRITE};
		sum += len;
		readable += writable ? 0 : len;
		was_writable = writable;
		next = at + 2 == p->end ? p->table : at + 2;
		if (!(flags & DESC_NEXT))
			break;
		at = MUTANT(PACKED_LIST_END, next, next == p->table ? at : next);
		rest = __atomic_load_n(at + 1, __ATOMIC_RELAXED);
	}
	if (sum > CHAIN_MAX_BYTES)
		return NULL;
	c->nsegs = (uint16_t)(segs - first);
	c->head = (uint16_t)(rest >> 32);
	c->readable = readable;
	c->writable = sum - readable;
	*total += sum;
	return next;
}

/* Take plain lists for as long as they come. What changes is in locals: every store into the batch could alias it. */
static void __attribute__((noinline)) packed_pop_plain(const struct rings *r, struct virtq *q, struct virtio_batch *b,
						       const struct vmm_region *region, uint64_t *bytes)
{
	uint32_t room = b->max_segs - b->nsegs, free = packed_free(q, r->size), popped = q->popped, mask = q->order_mask;
	uint32_t state = available_state(q->next_avail), ids = q->ids, n;
	struct virtio_seg *segs = b->segs + b->nsegs, *limit = segs + (free < room ? free : room);
	struct virtio_chain *c = b->chains + b->nchains, *end = b->chains + b->max_chains;
	const vmm_u64_alias *at, *next;
	struct virtq_held *held = q->held;
	uint16_t *order = q->order;
	uint64_t total = *bytes, rest;
	struct packed_plain p;

	if (!packed_plain_open(r, region, &p))
		return;
	at = p.table + 2 * (size_t)slot_of(q->next_avail);
	for (; c != end && total < VIRTQ_BATCH_BYTES; c++, popped++) {
		/* SAFETY: as in packed_plain_list. FENCE packed-avail: acquire, as in packed_pop_one. */
		rest = __atomic_load_n(at + 1, __ATOMIC_ACQUIRE);
		if ((rest >> 48 & PACKED_STATE) != state)
			break;
		next = packed_plain_list(&p, at, rest, segs, limit, c, &total);
		if (next == NULL || c->head >= ids || MUTANT(PACKED_ID_TWICE, held[c->head].slots != 0, 0))
			break;
		/* As packed_take. */
		n = c->nsegs;
		held[c->head].order = popped;
		held[c->head].slots = (uint16_t)n;
		order[popped & mask] = c->head;
		/* A list may take up the whole ring. */
		if (MUTANT(PACKED_WHOLE_LAP, next <= at, next < at))
			state ^= MUTANT(PACKED_AVAIL_WRAP, PACKED_STATE, 0);
		at = next;
		c->first_seg = (uint32_t)(segs - b->segs);
		c->written = 0;
		c->error = 0;
		segs += n;
	}
	n = (uint32_t)(segs - b->segs) - b->nsegs;
	q->in_flight += popped - q->popped;
	q->popped = popped;
	q->busy += n;
	q->next_avail = (uint16_t)((uint32_t)(at - p.table) / 2 | (state == available_state(VIRTQ_WRAP) ? VIRTQ_WRAP : 0));
	b->nsegs += n;
	b->nchains = (uint32_t)(c - b->chains);
	*bytes = total;
}

#endif
