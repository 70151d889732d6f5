/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * See core.h. Rules: VIRTIO 1.2 section 2.7 (split virtqueues). */
#define _GNU_SOURCE
#include "core.h"

#include <stdlib.h>

#include "split.h"

/* walk_chain: the batch has no room left for this chain. */
#define NO_ROOM 1

int virtq_check(const struct vmm_map *map, struct virtq *q)
{
	struct rings r;

	return rings_open(map, q, &r);
}

/* Where a chain is being walked: the main table, or the one indirect table it may lead into. */
struct walk {
	struct span table;
	uint32_t entries; /* of this table */
	uint32_t visited; /* of this table; more than `entries` proves a cycle */
	uint32_t index;
	int indirect;
};

static inline int enter_indirect(struct virtq *q, const struct desc *d, uint32_t head, uint32_t position, struct walk *w)
{
	if (!(q->flags & VIRTQ_INDIRECT))
		return fault(q, VIRTIO_E_INDIRECT, head, position, d->flags, 0);
	if (w->indirect)
		return fault(q, VIRTIO_E_NESTED, head, position, d->flags, 0);
	if (d->flags & DESC_NEXT)
		return fault(q, VIRTIO_E_COMBINED, head, position, d->flags, 0);
	if (d->len == 0 || d->len % DESC_BYTES != 0)
		return fault(q, VIRTIO_E_TABLE_SIZE, head, position, d->len, DESC_BYTES);
	/* WRITE in the referring descriptor is to be ignored (2.7.5.3.2), and the table has no alignment rule. */
	if (span_open(w->table.map, d->addr, d->len, 0, 1, &w->table) != 0)
		return fault(q, VIRTIO_E_TABLE_ADDR, head, position, d->addr, d->len);
	w->entries = d->len / DESC_BYTES;
	w->visited = 0;
	w->index = 0;
	w->indirect = 1;
	return 0;
}

/* Most buffers of a batch lie in one region: try the region of the one before first. */
static inline int buffer_check(const struct vmm_map *map, const struct desc *d, const struct vmm_region **hint)
{
	const struct vmm_region *region = *hint;
	int write = (d->flags & DESC_WRITE) != 0;
	uint64_t offset;

	if (region != NULL) {
		offset = d->addr - region->base;
		if (offset < region->size && d->len <= region->size - offset &&
		    !(write && (region->flags & VMM_REGION_READONLY)))
			return 0;
	}
	return vmm_check_from(map, d->addr, d->len, write, hint);
}

/* A buffer that runs through read-only memory and then off the end of it is outside memory, not read-only. */
static int __attribute__((cold, noinline))
buffer_fault(const struct vmm_map *map, struct virtq *q, struct desc d, uint32_t head, uint32_t position)
{
	int error = vmm_check(map, d.addr, d.len, 0) == 0 ? VIRTIO_E_READONLY : VIRTIO_E_ADDR;

	return fault(q, error, head, position, d.addr, d.len);
}

/* The rules of one buffer, given how many came before it and their sum. */
static inline int buffer_rules(const struct rings *r, struct virtq *q, const struct desc *d, uint32_t head, uint32_t n,
			       uint64_t sum, const struct vmm_region **hint)
{
	if (__builtin_expect(n == r->size, 0))
		return fault(q, VIRTIO_E_LONG, head, n, n + 1u, r->size);
	if (__builtin_expect(sum + d->len > CHAIN_MAX_BYTES, 0))
		return fault(q, VIRTIO_E_TOTAL, head, n, sum + d->len, CHAIN_MAX_BYTES);
	if (__builtin_expect(d->len != 0 && buffer_check(r->avail.map, d, hint) != 0, 0))
		return buffer_fault(r->avail.map, q, *d, head, n);
	return 0;
}

/* Go to the next descriptor and copy it; into the indirect table when it refers to one. */
static inline int next_buffer(struct virtq *q, struct walk *w, uint32_t head, uint32_t n, struct desc *d)
{
	int rc;

	for (;;) {
		if (__builtin_expect(w->index >= w->entries, 0))
			return fault(q, VIRTIO_E_INDEX, head, n, w->index, w->entries);
		if (__builtin_expect(w->visited++ == w->entries, 0))
			return fault(q, VIRTIO_E_LOOP, head, n, w->visited, w->entries);
		if (__builtin_expect(load_desc(&w->table, w->index, d) != 0, 0))
			return fault(q, VIRTIO_E_TABLE_ADDR, head, n, w->table.gpa, w->entries);
		if (!(d->flags & DESC_INDIRECT))
			return 0;
		/* At most twice: inside a table it is a fault. */
		rc = enter_indirect(q, d, head, n, w);
		if (rc != 0)
			return rc;
	}
}

/* Walk the chain from `head` (already below r->size) into segs, at most `room` of them.
 * 0, NO_ROOM, or the chain's error with c->nsegs segments accepted. */
static int walk_chain(const struct rings *r, struct virtq *q, uint16_t head, struct virtio_seg *segs, uint32_t room,
		      const struct vmm_region **hint, struct virtio_chain *c)
{
	struct walk w = {.table = r->desc, .entries = r->size, .index = head};
	uint64_t sum = 0, readable = 0;
	uint32_t n = 0, was_writable = 0, writable;
	struct desc d = {0};
	int rc;

	for (;;) {
		rc = next_buffer(q, &w, head, n, &d);
		if (rc != 0)
			break;
		writable = (d.flags & DESC_WRITE) != 0;
		if (__builtin_expect(was_writable && !writable, 0)) {
			rc = fault(q, VIRTIO_E_ORDER, head, n, d.addr, d.len);
			break;
		}
		if (__builtin_expect(n == room && n != r->size, 0))
			return NO_ROOM;
		rc = buffer_rules(r, q, &d, head, n, sum, hint);
		if (rc != 0)
			break;
		segs[n++] = (struct virtio_seg){.addr = d.addr, .len = d.len, .writable = writable};
		sum += d.len;
		readable += writable ? 0 : d.len;
		was_writable = writable;
		if (!(d.flags & DESC_NEXT))
			break;
		w.index = d.next;
	}
	c->nsegs = (uint16_t)n;
	c->readable = rc == 0 ? readable : 0;
	c->writable = rc == 0 ? sum - readable : 0;
	return rc;
}

/* How many chains wait, or the fault that breaks the queue.
 * A driver has at most `size` chains out, counting those the device still works on (2.7.13.3): more is a lie, and
 * believing it would let a guest make the device hold any number of requests. */
static int available(const struct rings *r, struct virtq *q, uint16_t *ret)
{
	uint16_t idx, busy = in_flight(q), room = busy < r->size ? (uint16_t)(r->size - busy) : 0;

	/* Acquire: the ring entries and descriptors that this index announces are read after it. */
	if (load16(&r->avail, RING_IDX, __ATOMIC_ACQUIRE, &idx) != 0)
		return fault(q, VIRTQ_E_RING, VIRTQ_NO_HEAD, 1, q->avail, avail_bytes(r->size));
	*ret = (uint16_t)(idx - q->next_avail);
	if (*ret > room)
		return break_queue(q, fault(q, VIRTQ_E_AVAILABLE, VIRTQ_NO_HEAD, 0, *ret, room));
	return 0;
}

/* Take the chain at next_avail. 0 (taken, perhaps with its own error), NO_ROOM, or an error of the queue. */
static int pop_one(const struct rings *r, struct virtq *q, struct virtio_batch *b, const struct vmm_region **hint)
{
	struct virtio_chain *c = &b->chains[b->nchains];
	uint16_t head;
	int rc;

	if (load16(&r->avail, RING_ELEMENTS + 2u * (uint64_t)(q->next_avail & (r->size - 1u)), __ATOMIC_RELAXED, &head) != 0)
		return fault(q, VIRTQ_E_RING, VIRTQ_NO_HEAD, 1, q->avail, avail_bytes(r->size));
	if (head >= r->size)
		return break_queue(q, fault(q, VIRTQ_E_HEAD, head, 0, head, r->size));
	*c = (struct virtio_chain){.first_seg = b->nsegs, .head = head};
	rc = walk_chain(r, q, head, b->segs + b->nsegs, b->max_segs - b->nsegs, hint, c);
	if (rc == NO_ROOM)
		return rc;
	c->error = rc;
	b->nsegs += c->nsegs;
	b->nchains++;
	q->next_avail++;
	return 0;
}

int virtq_pop_batch(const struct vmm_map *map, struct virtq *q, struct virtio_batch *b)
{
	const struct vmm_region *hint = NULL;
	struct rings r;
	uint64_t bytes = 0;
	uint16_t waiting = 0;
	int rc;

	if (b->abi != VIRTIO_BATCH_ABI_WORD)
		return -EPROTO;
	b->nchains = 0;
	b->nsegs = 0;
	if (q->broken.error != 0) {
		q->fault = q->broken;
		return q->broken.error;
	}
	rc = rings_open(map, q, &r);
	if (rc != 0)
		return rc;
	if (b->max_segs < r.size)
		return -EINVAL;
	rc = available(&r, q, &waiting);
	while (rc == 0 && waiting-- != 0 && b->nchains < b->max_chains && bytes < VIRTQ_BATCH_BYTES) {
		rc = pop_one(&r, q, b, &hint);
		if (rc == 0)
			bytes += b->chains[b->nchains - 1].readable + b->chains[b->nchains - 1].writable;
	}
	/* Chains popped before the queue broke are good and are delivered; the next call reports the breakage. */
	return rc == NO_ROOM || b->nchains != 0 ? 0 : rc;
}

static int put_used(const struct rings *r, uint16_t position, uint16_t head, uint32_t len)
{
	uint64_t offset = used_offset(r->size, position);
	int rc = store32(&r->used, offset, head);

	return rc != 0 ? rc : store32(&r->used, offset + 4, len);
}

static void mark_used_dirty(const struct rings *r, uint16_t from, uint32_t count)
{
	uint32_t start = from & (r->size - 1u), left = r->size - start;
	uint32_t first = count < left ? count : left;

	vmm_mark_dirty(r->used.map, r->used.gpa + RING_ELEMENTS + USED_BYTES * (uint64_t)start, USED_BYTES * (uint64_t)first);
	vmm_mark_dirty(r->used.map, r->used.gpa + RING_ELEMENTS, USED_BYTES * (uint64_t)(count - first));
	vmm_mark_dirty(r->used.map, r->used.gpa + RING_IDX, 2);
}

/* Make `count` elements, already written from next_used on, visible. Nothing of q changes on failure. */
static int publish(const struct rings *r, struct virtq *q, uint32_t count)
{
	/* Release: the elements, and the data the device wrote into the buffers, are visible before the index is. */
	int rc = store16(&r->used, RING_IDX, __ATOMIC_RELEASE, (uint16_t)(q->next_used + count));

	if (rc != 0)
		return rc;
	/* Marked after the stores: a harvester that clears a bit in between will find it set again. */
	if (r->used.host != NULL)
		mark_used_dirty(r, q->next_used, count);
	q->next_used = (uint16_t)(q->next_used + count);
	q->num_added = q->num_added + count > 65536u ? 65536u : q->num_added + count;
	return 0;
}

static int decide(const struct rings *r, struct virtq *q, int *ret)
{
	uint32_t added = q->num_added;
	uint16_t word;
	int event_idx = (q->flags & VIRTQ_EVENT_IDX) != 0;

	/* Full fence, store -> load: used.idx is visible before the driver's wish is read. The driver does the mirror
	 * image (writes its wish, fence, reads used.idx), so at least one of the two sees the other. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (load16(&r->avail, event_idx ? used_event_offset(r->size) : RING_FLAGS, __ATOMIC_RELAXED, &word) != 0)
		return fault(q, VIRTQ_E_RING, VIRTQ_NO_HEAD, 1, q->avail, avail_bytes(r->size));
	/* 2.7.7.2 and 2.7.10: did next_used pass used_event since the last decision? Exact for any number of elements,
	 * because num_added is wider than the indices: after 65536 of them every event was passed. */
	if (event_idx)
		*ret = (uint16_t)(q->next_used - word - 1u) < added;
	else
		*ret = added != 0 && !(word & AVAIL_NO_INTERRUPT);
	q->num_added = 0;
	return 0;
}

static int __attribute__((cold)) used_fault(const struct rings *r, struct virtq *q)
{
	return fault(q, VIRTQ_E_RING, VIRTQ_NO_HEAD, 2, q->used, used_bytes(r->size));
}

static int completion_check(const struct rings *r, const struct virtq *q, const struct virtio_batch *b)
{
	int rc = virtio_batch_check(b);

	if (rc != 0)
		return rc;
	if (b->nchains > in_flight(q))
		return -EINVAL;
	for (uint32_t i = 0; i < b->nchains; i++)
		if (b->chains[i].head >= r->size || b->chains[i].written > b->chains[i].writable)
			return -EINVAL;
	return 0;
}

int virtq_complete_batch(const struct vmm_map *map, struct virtq *q, const struct virtio_batch *b, int *ret)
{
	struct rings r;
	int rc = rings_open(map, q, &r);

	*ret = 0;
	if (rc == 0)
		rc = completion_check(&r, q, b);
	if (rc != 0)
		return rc;
	for (uint32_t i = 0; i < b->nchains; i++)
		if (put_used(&r, (uint16_t)(q->next_used + i), b->chains[i].head, b->chains[i].written) != 0)
			return used_fault(&r, q);
	if (b->nchains != 0 && publish(&r, q, b->nchains) != 0)
		return used_fault(&r, q);
	return decide(&r, q, ret);
}

int virtq_add_used(const struct vmm_map *map, struct virtq *q, uint16_t head, uint32_t len)
{
	struct rings r;
	int rc = rings_open(map, q, &r);

	if (rc != 0)
		return rc;
	if (head >= r.size || in_flight(q) == 0)
		return -EINVAL;
	if (put_used(&r, q->next_used, head, len) != 0 || publish(&r, q, 1) != 0)
		return used_fault(&r, q);
	return 0;
}

int virtq_needs_notification(const struct vmm_map *map, struct virtq *q, int *ret)
{
	struct rings r;
	int rc = rings_open(map, q, &r);

	*ret = 0;
	return rc != 0 ? rc : decide(&r, q, ret);
}

static int hint_store(const struct rings *r, struct virtq *q, uint64_t offset, uint16_t value)
{
	/* Relaxed: a hint to the driver; where its order matters, a fence follows. */
	if (store16(&r->used, offset, __ATOMIC_RELAXED, value) != 0)
		return used_fault(r, q);
	if (r->used.host != NULL)
		vmm_mark_dirty(r->used.map, r->used.gpa + offset, 2);
	return 0;
}

int virtq_enable_notification(const struct vmm_map *map, struct virtq *q, int *ret)
{
	struct rings r;
	uint16_t idx;
	int rc;

	*ret = 0;
	/* Nothing will be popped from a broken queue: to say "there is more" would make its owner spin. */
	if (q->broken.error != 0)
		return 0;
	rc = rings_open(map, q, &r);
	if (rc != 0)
		return rc;
	if (q->flags & VIRTQ_EVENT_IDX)
		rc = hint_store(&r, q, avail_event_offset(r.size), q->next_avail);
	else
		rc = hint_store(&r, q, RING_FLAGS, 0);
	if (rc != 0)
		return rc;
	/* Full fence, store -> load: the wish for a kick is visible before avail.idx is read again. The driver writes
	 * avail.idx, fence, reads the wish; so either it sees the wish and kicks, or we see its index here. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	/* Relaxed: only compared here; the pop that follows loads it again with acquire. */
	if (load16(&r.avail, RING_IDX, __ATOMIC_RELAXED, &idx) != 0)
		return fault(q, VIRTQ_E_RING, VIRTQ_NO_HEAD, 1, q->avail, avail_bytes(r.size));
	*ret = idx != q->next_avail;
	return 0;
}

int virtq_disable_notification(const struct vmm_map *map, struct virtq *q)
{
	struct rings r;
	int rc;

	if (q->broken.error != 0)
		return 0;
	rc = rings_open(map, q, &r);
	if (rc != 0 || (q->flags & VIRTQ_EVENT_IDX))
		return rc;
	return hint_store(&r, q, RING_FLAGS, USED_NO_NOTIFY);
}

int virtq_selftest_overrun(void)
{
#ifdef VMM_SANITIZE
	/* Volatile pointer: no static bounds check sees through it. Volatile bytes: the store is not optimised away. */
	volatile uint8_t *volatile block = malloc(8);
	volatile size_t end = 8;

	if (block == NULL)
		return -ENOMEM;
	block[end] = 1;
	free((void *)block);
	return 0;
#else
	return -ENOSYS;
#endif
}
