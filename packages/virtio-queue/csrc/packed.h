/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Private to core.c: a packed ring (VIRTIO 1.2, 2.8): its words, and one list of descriptors from there into segments.
 *
 * Who holds which descriptors is in `struct virtq`, never read back from the ring: `busy` counts them, so what may be
 * available is at most the rest, and `held` knows the length of each list in flight by its buffer id. */
#ifndef VIRTQ_PACKED_H
#define VIRTQ_PACKED_H

#include "walk.h"

#define PACKED_AVAIL 0x80u
#define PACKED_USED 0x8000u
#define PACKED_STATE (PACKED_AVAIL | PACKED_USED)
#define PACKED_FLAGS 14u /* offset in a descriptor */
#define PACKED_WORD 8u   /* offset of length, id and flags, which are one aligned word */

#define EVENT_DISABLE 1u
#define EVENT_DESC 2u
#define EVENT_KIND 3u /* the other 14 bits are reserved */

/* packed_pop_one: the driver has made nothing (more) available. */
#define NOTHING 2

/* The two bits that make a descriptor available, and used, in the lap of a position. */
static inline uint32_t available_state(uint16_t position) { return position & VIRTQ_WRAP ? PACKED_AVAIL : PACKED_USED; }
static inline uint32_t used_state(uint16_t position)
{
	return MUTANT(PACKED_USED_STATE, position & VIRTQ_WRAP, 1) ? PACKED_STATE : 0;
}

/* The place of the other lap counter is bit 15, so that both lie within two laps. */
static inline uint32_t lap_of(uint16_t position, uint32_t size)
{
	return slot_of(position) + (position & VIRTQ_WRAP ? size : 0);
}

static inline uint16_t packed_move(uint16_t position, uint32_t count, uint32_t size)
{
	uint32_t slot = slot_of(position) + count, wrap = position & VIRTQ_WRAP;

	if (slot >= size) {
		slot -= size;
		wrap ^= VIRTQ_WRAP;
	}
	return (uint16_t)((slot & ~VIRTQ_WRAP) | wrap);
}

/* What a mutant does: the wrap counter is forgotten. */
static inline uint16_t packed_same_lap(uint16_t position, uint32_t count, uint32_t size)
{
	return (uint16_t)((packed_move(position, count, size) & ~VIRTQ_WRAP) | (position & VIRTQ_WRAP));
}

static inline uint16_t packed_back(uint16_t position, uint32_t count, uint32_t size)
{
	uint32_t slot = slot_of(position), wrap = position & VIRTQ_WRAP;

	if (slot < count) {
		slot += size;
		wrap ^= VIRTQ_WRAP;
	}
	return (uint16_t)(((slot - count) & ~VIRTQ_WRAP) | wrap);
}

/* Descriptors that the driver may have made available; 0 also when it shrank the ring under us. */
static inline uint32_t packed_free(const struct virtq *q, uint32_t size) { return q->busy < size ? size - q->busy : 0; }

/* As load_desc; `next` is the buffer id. */
static inline void load_packed(const struct span *s, uint32_t index, struct desc *ret)
{
	uint16_t flags;

	load_desc(s, index, ret);
	flags = ret->next;
	ret->next = ret->flags;
	ret->flags = flags;
}

/* Did the driver make the descriptor at this position available? */
static inline int packed_offered(const struct rings *r, uint16_t position, int order)
{
	uint16_t flags = load16(&r->desc, (uint64_t)slot_of(position) * DESC_BYTES + PACKED_FLAGS, order);

	return (flags & PACKED_STATE) == available_state(position);
}

/* A list on its way into segments. */
struct list {
	struct virtio_seg *segs;
	uint32_t room, n;
	uint64_t sum, readable;
	uint32_t tables;
	int was_writable;
};

static inline int list_accept(const struct rings *r, struct virtq *q, struct list *l, const struct desc *d,
			      const struct vmm_region **hint)
{
	int writable = (d->flags & DESC_WRITE) != 0, rc;

	if (l->was_writable && !writable)
		return fault(q, VIRTIO_E_ORDER, VIRTQ_NO_HEAD, l->n, d->addr, d->len);
	if (l->n == l->room && MUTANT(TOO_LONG, l->n != r->size, 1))
		return NO_ROOM;
	rc = buffer_rules(r, q, d, VIRTQ_NO_HEAD, l->n, l->sum, hint);
	if (rc != 0)
		return rc;
	l->segs[l->n++] = (struct virtio_seg){.addr = d->addr, .len = d->len, .writable = (uint32_t)writable};
	l->sum += d->len;
	l->readable += writable ? 0 : d->len;
	l->was_writable = writable;
	return 0;
}

/* An indirect table: all its entries, one after the other; id and all flags but WRITE mean nothing there (2.8.7). */
static int list_table(const struct rings *r, struct virtq *q, struct list *l, const struct desc *d, uint32_t position,
		      const struct vmm_region **hint)
{
	struct span table;
	struct desc entry = {0};
	int rc = 0;

	if (!(q->flags & VIRTQ_INDIRECT))
		return fault(q, VIRTIO_E_INDIRECT, VIRTQ_NO_HEAD, l->n, d->flags, 0);
	if ((d->flags & DESC_NEXT) || MUTANT(PACKED_MIXED, position != 0, 0))
		return fault(q, VIRTIO_E_COMBINED, VIRTQ_NO_HEAD, l->n, d->flags, 0);
	if (d->len == 0 || d->len % DESC_BYTES != 0)
		return fault(q, VIRTIO_E_TABLE_SIZE, VIRTQ_NO_HEAD, l->n, d->len, DESC_BYTES);
	if (span_open(r->desc.map, d->addr, d->len, 0, 1, &table) != 0)
		return fault(q, VIRTIO_E_TABLE_ADDR, VIRTQ_NO_HEAD, l->n, d->addr, d->len);
	l->tables++;
	/* Bounded whatever d->len is: buffer_rules refuses the buffer after r->size. */
	for (uint32_t i = 0; rc == 0 && i < d->len / DESC_BYTES; i++) {
		load_packed(&table, i, &entry);
		rc = list_accept(r, q, l, &entry, hint);
	}
	return rc;
}

static inline int packed_id_free(const struct virtq *q, uint32_t id)
{
	return id < q->ids && MUTANT(PACKED_ID_TWICE, q->held[id].slots == 0, 1);
}

/* Have the list with this id in flight, which took up `slots` descriptors from next_avail on. */
static inline void packed_take(struct virtq *q, uint32_t size, uint32_t id, uint32_t slots)
{
	/* SAFETY: the caller has seen packed_id_free; `order` has order_mask + 1 entries whenever ids is not 0. */
	q->held[id] = (struct virtq_held){.order = q->popped, .slots = (uint16_t)slots};
	q->order[q->popped & q->order_mask] = (uint16_t)id;
	q->popped++;
	q->in_flight++;
	q->busy += slots;
	q->next_avail = MUTANT(PACKED_AVAIL_WRAP, packed_move(q->next_avail, MUTANT(PACKED_WHOLE_LAP, slots, slots % size), size),
			       packed_same_lap(q->next_avail, slots, size));
}

/* Take the list at next_avail, which the caller found available. 0 (taken, perhaps with its own error), NO_ROOM, or an
 * error of the queue. */
static int packed_walk(const struct rings *r, struct virtq *q, struct list *l, const struct vmm_region **hint,
		       struct virtio_chain *c)
{
	uint32_t slot = slot_of(q->next_avail), free = packed_free(q, r->size), taken = 0;
	struct desc d = {0};
	int error = 0;

	do {
		/* Without an end nobody knows where the next list begins. */
		if (taken == free)
			return break_queue(q, fault(q, VIRTQ_E_ENDLESS, VIRTQ_NO_HEAD, 0, r->size, free));
		load_packed(&r->desc, slot, &d);
		/* Behind the first fault nothing more is accepted, but the end must be found: it has the id. */
		if (error == 0)
			error = d.flags & DESC_INDIRECT ? list_table(r, q, l, &d, taken, hint) : list_accept(r, q, l, &d, hint);
		if (error == NO_ROOM)
			return NO_ROOM;
		taken++;
		slot = slot + 1 == r->size ? MUTANT(PACKED_LIST_END, 0, slot) : slot + 1;
	} while (d.flags & DESC_NEXT);
	if (!packed_id_free(q, d.next))
		return break_queue(q, fault(q, VIRTQ_E_ID, d.next, 0, d.next, q->ids - 1u));
	if (MUTANT(PACKED_HEAD_LOST, error != 0, 0))
		q->fault.head = d.next;
	q->counters.tables += l->tables;
	packed_take(q, r->size, d.next, taken);
	c->head = d.next;
	c->error = error;
	c->nsegs = (uint16_t)l->n;
	c->readable = error == 0 ? l->readable : 0;
	c->writable = error == 0 ? l->sum - l->readable : 0;
	return 0;
}

#endif
