/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * See core.h. Layouts and rules: VIRTIO 1.2 section 2.7 (split virtqueues). */
#define _GNU_SOURCE
#include "core.h"

#include <stdlib.h>

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u
#define DESC_BYTES 16u

#define AVAIL_NO_INTERRUPT 1u
#define USED_NO_NOTIFY 1u

/* Offsets, the same in both rings: flags, idx, elements, then one event word behind the elements. */
#define RING_FLAGS 0u
#define RING_IDX 2u
#define RING_ELEMENTS 4u
#define USED_BYTES 8u

#define CHAIN_MAX_BYTES (UINT64_C(1) << 32)

/* walk_chain: the batch has no room left for this chain. */
#define NO_ROOM 1

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
_Static_assert(sizeof(struct desc) == DESC_BYTES, "wire layout");

/* A range of guest memory that is read or written word by word.
 * host is NULL when it is not contiguous here (or oddly aligned); then each access goes through the map. */
struct span {
	const struct vmm_map *map;
	uint8_t *host;
	uint64_t gpa;
};

struct rings {
	struct span desc, avail, used;
	uint16_t size;
};

static int __attribute__((cold, noinline))
fault(struct virtq *q, int error, uint32_t head, uint32_t position, uint64_t value, uint64_t limit)
{
	q->fault = (struct virtq_fault){
		.error = -error, .head = head, .position = position, .known = 1, .value = value, .limit = limit};
	return -error;
}

/* Keeps the fault just recorded: every later pop reports it again, until a reset. */
static int __attribute__((cold, noinline)) break_queue(struct virtq *q, int error)
{
	q->broken = q->fault;
	return error;
}

static int span_open(const struct vmm_map *map, uint64_t gpa, uint64_t len, int write, unsigned align, struct span *ret)
{
	*ret = (struct span){.map = map, .gpa = gpa};
	if (vmm_get(map, gpa, len, write, &ret->host) == 0) {
		if ((uintptr_t)ret->host & (align - 1))
			ret->host = NULL;
		return 0;
	}
	return vmm_check(map, gpa, len, write);
}

/* SAFETY (all four): the caller stays within the len that span_open checked, at offsets that are multiples of
 * the access size; span_open dropped host pointers that are not aligned for it. */
static inline int load16(const struct span *s, uint64_t offset, int order, uint16_t *ret)
{
	if (__builtin_expect(s->host == NULL, 0))
		return vmm_load16(s->map, s->gpa + offset, order, ret);
	if (order == __ATOMIC_ACQUIRE)
		*ret = __atomic_load_n((const vmm_u16_alias *)(s->host + offset), __ATOMIC_ACQUIRE);
	else
		*ret = __atomic_load_n((const vmm_u16_alias *)(s->host + offset), __ATOMIC_RELAXED);
	return 0;
}

/* With a host pointer the caller marks the page dirty, once for a whole batch. */
static inline int store16(const struct span *s, uint64_t offset, int order, uint16_t value)
{
	if (__builtin_expect(s->host == NULL, 0))
		return vmm_store16(s->map, s->gpa + offset, order, value);
	if (order == __ATOMIC_RELEASE)
		__atomic_store_n((vmm_u16_alias *)(s->host + offset), value, __ATOMIC_RELEASE);
	else
		__atomic_store_n((vmm_u16_alias *)(s->host + offset), value, __ATOMIC_RELAXED);
	return 0;
}

static inline int store32(const struct span *s, uint64_t offset, uint32_t value)
{
	if (__builtin_expect(s->host == NULL, 0))
		return vmm_store32(s->map, s->gpa + offset, __ATOMIC_RELAXED, value);
	__atomic_store_n((vmm_u32_alias *)(s->host + offset), value, __ATOMIC_RELAXED);
	return 0;
}

static inline int load_desc(const struct span *s, uint32_t index, struct desc *ret)
{
	if (__builtin_expect(s->host == NULL, 0))
		return vmm_read(s->map, s->gpa + (uint64_t)index * DESC_BYTES, ret, DESC_BYTES);
	memcpy(ret, s->host + (uint64_t)index * DESC_BYTES, DESC_BYTES);
	/* Orders nothing in the CPU: it keeps the compiler from reading the guest's copy again after the checks. */
	__asm__ __volatile__("" ::: "memory");
	return 0;
}

static inline uint64_t avail_bytes(uint16_t size) { return 6u + 2u * (uint64_t)size; }
static inline uint64_t used_bytes(uint16_t size) { return 6u + USED_BYTES * (uint64_t)size; }
static inline uint64_t used_event_offset(uint16_t size) { return RING_ELEMENTS + 2u * (uint64_t)size; }
static inline uint64_t avail_event_offset(uint16_t size) { return RING_ELEMENTS + USED_BYTES * (uint64_t)size; }
static inline uint64_t used_offset(uint16_t size, uint16_t position)
{
	return RING_ELEMENTS + USED_BYTES * (uint64_t)(position & (size - 1u));
}
static inline uint16_t in_flight(const struct virtq *q) { return (uint16_t)(q->next_avail - q->next_used); }

static int ring_open(const struct vmm_map *map, struct virtq *q, uint32_t part, uint64_t gpa, uint64_t len,
		     unsigned align, struct span *ret)
{
	if (gpa & (align - 1))
		return fault(q, VIRTQ_E_ALIGNMENT, VIRTQ_NO_HEAD, part, gpa, align);
	/* Only the used ring is ever written; the event words exist whether or not they are negotiated (2.7.6, 2.7.8).
	 * Descriptors are copied bytewise, so their host address may have any alignment. */
	if (span_open(map, gpa, len, part == 2, part == 0 ? 1 : align, ret) != 0)
		return fault(q, VIRTQ_E_RING, VIRTQ_NO_HEAD, part, gpa, len);
	return 0;
}

/* The size is copied here once: a reset that races with the device thread cannot move it under a loop. */
static int rings_open(const struct vmm_map *map, struct virtq *q, struct rings *ret)
{
	uint16_t size = q->size;
	int rc = vmm_map_check(map);

	if (rc != 0)
		return rc;
	if (!(q->flags & VIRTQ_READY))
		return fault(q, VIRTQ_E_NOT_READY, VIRTQ_NO_HEAD, 0, 0, 1);
	if (size == 0 || (size & (size - 1)) || size > q->max_size || size > VIRTQ_MAX_SIZE)
		return fault(q, VIRTQ_E_SIZE, VIRTQ_NO_HEAD, 0, size, q->max_size);
	ret->size = size;
	rc = ring_open(map, q, 0, q->desc, (uint64_t)size * DESC_BYTES, 16, &ret->desc);
	if (rc == 0)
		rc = ring_open(map, q, 1, q->avail, avail_bytes(size), 2, &ret->avail);
	if (rc == 0)
		rc = ring_open(map, q, 2, q->used, used_bytes(size), 4, &ret->used);
	return rc;
}

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

static int enter_indirect(struct virtq *q, const struct desc *d, uint32_t head, uint32_t position, struct walk *w)
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
buffer_fault(const struct vmm_map *map, struct virtq *q, const struct desc *d, uint32_t head, uint32_t position)
{
	int error = vmm_check(map, d->addr, d->len, 0) == 0 ? VIRTIO_E_READONLY : VIRTIO_E_ADDR;

	return fault(q, error, head, position, d->addr, d->len);
}

/* Walk the chain from `head` (already below r->size) into segs, at most `room` of them.
 * 0, NO_ROOM, or the chain's error with c->nsegs segments accepted. */
static int walk_chain(const struct rings *r, struct virtq *q, uint16_t head, struct virtio_seg *segs, uint32_t room,
		      const struct vmm_region **hint, struct virtio_chain *c)
{
	struct walk w = {.table = r->desc, .entries = r->size, .index = head};
	uint64_t totals[2] = {0, 0};
	uint32_t n = 0, seen_writable = 0;
	struct desc d;
	int rc = 0;

	for (;;) {
		uint32_t writable;

		c->nsegs = (uint16_t)n;
		if (w.index >= w.entries)
			return fault(q, VIRTIO_E_INDEX, head, n, w.index, w.entries);
		if (w.visited++ == w.entries)
			return fault(q, VIRTIO_E_LOOP, head, n, w.visited, w.entries);
		if (load_desc(&w.table, w.index, &d) != 0)
			return fault(q, VIRTIO_E_TABLE_ADDR, head, n, w.table.gpa, w.entries);
		if (__builtin_expect(d.flags & DESC_INDIRECT, 0)) {
			rc = enter_indirect(q, &d, head, n, &w);
			if (rc != 0)
				return rc;
			continue;
		}
		writable = (d.flags & DESC_WRITE) != 0;
		if (!writable && seen_writable)
			return fault(q, VIRTIO_E_ORDER, head, n, d.addr, d.len);
		if (n == r->size)
			return fault(q, VIRTIO_E_LONG, head, n, n + 1u, r->size);
		if (n == room)
			return NO_ROOM;
		if (totals[0] + totals[1] + d.len > CHAIN_MAX_BYTES)
			return fault(q, VIRTIO_E_TOTAL, head, n, totals[0] + totals[1] + d.len, CHAIN_MAX_BYTES);
		if (d.len != 0 && buffer_check(r->avail.map, &d, hint) != 0)
			return buffer_fault(r->avail.map, q, &d, head, n);
		segs[n++] = (struct virtio_seg){.addr = d.addr, .len = d.len, .writable = writable};
		totals[writable] += d.len;
		seen_writable |= writable;
		if (!(d.flags & DESC_NEXT))
			break;
		w.index = d.next;
	}
	c->nsegs = (uint16_t)n;
	c->readable = totals[0];
	c->writable = totals[1];
	return 0;
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
	while (rc == 0 && waiting-- != 0 && b->nchains < b->max_chains)
		rc = pop_one(&r, q, b, &hint);
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
	volatile uint8_t *block = malloc(8);
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
