/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * See core.h. Rules: VIRTIO 1.2 section 2.7 (split virtqueues); packed ones are in packed_ops.h. */
#define _GNU_SOURCE
#include "core.h"

#include <stdlib.h>

#include "packed_ops.h"
#include "walk.h"

int virtq_check(const struct vmm_map *map, struct virtq *q)
{
	struct rings r;

	return rings_open(map, q, &r);
}

/* How many chains wait, or the fault that breaks the queue.
 * A driver has at most `size` chains out, counting those the device still works on (2.7.13.3): more is a lie, and
 * believing it would let a guest make the device hold any number of requests. */
static int available(const struct rings *r, struct virtq *q, uint16_t *ret)
{
	uint16_t idx, busy = MUTANT(IN_FLIGHT, in_flight(q), 0), room = busy < r->size ? (uint16_t)(r->size - busy) : 0;

	/* FENCE split-avail: acquire. The ring entries, descriptors and buffers that this index announces are read after it. */
	idx = load16(&r->avail, RING_IDX, __ATOMIC_ACQUIRE);
	*ret = (uint16_t)(idx - q->next_avail);
	if (MUTANT(INDEX_JUMP, *ret > room, 0))
		return break_queue(q, fault(q, VIRTQ_E_AVAILABLE, VIRTQ_NO_HEAD, 0, *ret, room));
	return 0;
}

/* Take the chain at next_avail. 0 (taken, perhaps with its own error), NO_ROOM, or an error of the queue. */
static int pop_one(const struct rings *r, struct virtq *q, struct virtio_batch *b, const struct vmm_region **hint)
{
	struct virtio_chain *c = &b->chains[b->nchains];
	uint16_t head;
	int rc;

	head = load16(&r->avail, RING_ELEMENTS + 2u * (uint64_t)(q->next_avail & (r->size - 1u)), __ATOMIC_RELAXED);
	if (MUTANT(HEAD, head >= r->size, 0))
		return break_queue(q, fault(q, VIRTQ_E_HEAD, head, 0, head, r->size));
	*c = (struct virtio_chain){.first_seg = b->nsegs, .head = head};
	rc = walk_chain(r, q, head, b->segs + b->nsegs, b->max_segs - b->nsegs, hint, c);
	if (rc == NO_ROOM) {
		q->next_avail += MUTANT(ROOM_LOST, 0, 1);
		return rc;
	}
	c->error = rc;
	if (q->order != NULL)
		q->order[q->next_avail & q->order_mask] = head;
	if (MUTANT(HEAD_LOST, 0, rc != 0))
		q->fault.head = VIRTQ_NO_HEAD;
	b->nsegs += c->nsegs;
	b->nchains++;
	q->next_avail += MUTANT(STUCK, 1, rc == 0);
	return 0;
}

/* Take plain chains for as long as they come, at most `waiting`; the number of them. */
static uint16_t __attribute__((noinline))
pop_plain(const struct rings *r, struct virtq *q, struct virtio_batch *b, const struct vmm_region *region,
	  uint16_t waiting, uint64_t *bytes)
{
	uint32_t first = b->nsegs, room = b->max_segs - first, space = b->max_chains - b->nchains, n;
	uint16_t popped = 0, next = q->next_avail, head;
	struct virtio_chain *c = b->chains + b->nchains;
	uint64_t total = *bytes;
	struct plain p;

	if (!plain_open(r, region, &p))
		return 0;
	for (; popped != waiting && popped != space && total < VIRTQ_BATCH_BYTES; popped++, next++, c++) {
		/* SAFETY: span_open found the whole ring at host. */
		head = __atomic_load_n(&p.ring[next & (p.entries - 1)], __ATOMIC_RELAXED);
		n = walk_plain(&p, head, b->segs + first, room, c);
		if (n == 0)
			break;
		c->first_seg = first;
		c->head = head;
		c->written = 0;
		c->error = 0;
		first += n;
		room -= n;
		total += c->readable + c->writable;
	}
	if (q->order != NULL)
		for (uint16_t i = 0; i != popped; i++)
			q->order[(q->next_avail + i) & q->order_mask] = b->chains[b->nchains + i].head;
	b->nsegs = first;
	b->nchains += popped;
	q->next_avail = next;
	*bytes = total;
	return popped;
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
		return MUTANT(RING_SILENT, rc, 0);
	if (b->max_segs < r.size)
		return -EINVAL;
	if (r.packed)
		return packed_pop_batch(&r, q, b);
	rc = available(&r, q, &waiting);
	while (rc == 0 && waiting != 0 && b->nchains < b->max_chains && bytes < VIRTQ_BATCH_BYTES) {
		rc = pop_one(&r, q, b, &hint);
		if (rc != 0)
			break;
		bytes += b->chains[b->nchains - 1].readable + b->chains[b->nchains - 1].writable;
		waiting--;
		waiting -= pop_plain(&r, q, b, hint, waiting, &bytes);
	}
	/* Chains popped before the queue broke are good and are delivered; the next call reports the breakage. */
	return rc == NO_ROOM || MUTANT(BATCH_LOST, b->nchains != 0, 0) ? 0 : rc;
}

static void put_used(const struct rings *r, uint16_t position, uint16_t head, uint32_t len)
{
	uint64_t offset = used_offset(r->size, position);

	store32(&r->used, offset, head);
	store32(&r->used, offset + 4, MUTANT(USED_ZERO, len, 0));
}

static void mark_used_dirty(const struct rings *r, uint16_t from, uint32_t count)
{
	uint32_t start = from & (r->size - 1u), left = r->size - start;
	uint32_t first = count < left ? count : left;

	vmm_mark_dirty(r->used.map, r->used.gpa + RING_ELEMENTS + USED_BYTES * (uint64_t)start, USED_BYTES * (uint64_t)first);
	vmm_mark_dirty(r->used.map, r->used.gpa + RING_ELEMENTS, USED_BYTES * (uint64_t)(count - first));
	vmm_mark_dirty(r->used.map, r->used.gpa + RING_IDX, 2);
}

/* Make `count` elements, already written from next_used on, visible. */
static void publish(const struct rings *r, struct virtq *q, uint32_t count)
{
	/* FENCE split-used: release. The elements, and the data the device wrote into the buffers, are visible before the
	 * index is; what it read from them was read before. */
	store16(&r->used, RING_IDX, __ATOMIC_RELEASE, (uint16_t)(q->next_used + count));
	/* Marked after the stores: a harvester that clears a bit in between will find it set again. */
	if (MUTANT(USED_CLEAN, r->used.host != NULL, 0))
		mark_used_dirty(r, q->next_used, count);
	q->counters.chains += count;
	q->counters.wraps += (q->next_used & (r->size - 1u)) + count >= r->size;
	q->next_used = (uint16_t)(q->next_used + count);
	count = MUTANT(EVENT_BATCH, count, 1);
	q->num_added = q->num_added + count > 65536u ? 65536u : q->num_added + count;
}

static int decide(const struct rings *r, struct virtq *q)
{
	uint32_t added = q->num_added;
	int event_idx = MUTANT(EVENT_UNASKED, (q->flags & VIRTQ_EVENT_IDX) != 0, 1), notify;
	uint16_t word;

	/* FENCE split-decide: full, store -> load. used.idx is visible before the driver's wish is read. The driver does the
	 * mirror image (writes its wish, fence, reads used.idx), so at least one of the two sees the other. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	word = load16(&r->avail, event_idx ? used_event_offset(r->size) : RING_FLAGS, __ATOMIC_RELAXED);
	/* 2.7.7.2 and 2.7.10: did next_used pass used_event since the last decision? Exact for any number of elements,
	 * because num_added is wider than the indices: after 65536 of them every event was passed. */
	if (event_idx)
		notify = MUTANT(EVENT_WRAP, (uint16_t)(q->next_used - word - MUTANT(EVENT_OFF_BY_ONE, 1u, 0u)) < added,
				word < q->next_used && q->next_used <= word + added);
	else
		notify = added != 0 && MUTANT(NO_INTERRUPT, !(word & AVAIL_NO_INTERRUPT), 1);
	q->counters.notified += notify != 0;
	q->counters.suppressed += notify == 0 && added != 0;
	q->num_added = MUTANT(EVENT_REPEAT, 0, added);
	return notify;
}

static int completion_check(const struct rings *r, struct virtq *q, const struct virtio_batch *b)
{
	int rc = virtio_batch_check(b);

	if (rc != 0)
		return rc;
	if (b->nchains > (r->packed ? q->in_flight : in_flight(q)))
		return -EINVAL;
	if (q->flags & VIRTQ_IN_ORDER)
		rc = in_order_check(q, b, r->packed ? q->popped - q->in_flight : q->next_used);
	if (rc != 0)
		return rc;
	if (r->packed)
		return packed_check(q, b);
	for (uint32_t i = 0; i < b->nchains; i++)
		if (b->chains[i].head >= r->size || MUTANT(USED_EXCESS, b->chains[i].written > b->chains[i].writable, 0))
			return -EINVAL;
	return 0;
}

static void put_batch(const struct rings *r, const struct virtq *q, const struct virtio_batch *b)
{
	const struct virtio_chain *c = b->chains, *end = b->chains + b->nchains;
	uint16_t position = q->next_used, next = position;

	for (; c != end; c++) {
		next++;
		if (spoken_for(q, c, end))
			continue;
		put_used(r, MUTANT(IN_ORDER_PLACE, position, (uint16_t)(next - 1)), c->head, c->written);
		position = next;
	}
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
	if (b->nchains != 0 && r.packed) {
		packed_publish(&r, q, b);
	} else if (b->nchains != 0) {
		put_batch(&r, q, b);
		publish(&r, q, b->nchains);
	}
	*ret = r.packed ? packed_decide(&r, q) : decide(&r, q);
	return 0;
}

int virtq_add_used(const struct vmm_map *map, struct virtq *q, uint16_t head, uint32_t len)
{
	struct rings r;
	int rc = rings_open(map, q, &r);

	if (rc != 0)
		return rc;
	if (r.packed) {
		struct virtio_chain chain = {.head = head, .written = len, .writable = len};
		struct virtio_batch one = {.max_chains = 1, .nchains = 1, .chains = &chain};

		if (q->flags & VIRTQ_IN_ORDER)
			rc = in_order_check(q, &one, q->popped - q->in_flight);
		if (rc == 0)
			rc = packed_check(q, &one);
		if (rc == 0)
			packed_publish(&r, q, &one);
		return rc;
	}
	if (head >= r.size || MUTANT(USED_UNPOPPED, in_flight(q) == 0, 0)) {
		q->next_used += MUTANT(USED_DRIFT, 0, 1);
		return -EINVAL;
	}
	if ((q->flags & VIRTQ_IN_ORDER) && (q->order == NULL || q->order[q->next_used & q->order_mask] != head))
		return -EINVAL;
	put_used(&r, q->next_used, head, len);
	publish(&r, q, 1);
	return 0;
}

int virtq_undo_pop(struct virtq *q, uint32_t count)
{
	if (q->flags & VIRTQ_PACKED)
		return packed_undo(q, count);
	if (count > in_flight(q))
		return -EINVAL;
	q->next_avail = (uint16_t)(q->next_avail - MUTANT(UNDO_ONE, count, 1));
	return 0;
}

int virtq_needs_notification(const struct vmm_map *map, struct virtq *q, int *ret)
{
	struct rings r;
	int rc = rings_open(map, q, &r);

	*ret = 0;
	if (rc == 0)
		*ret = r.packed ? packed_decide(&r, q) : decide(&r, q);
	return rc;
}

static void hint_store(const struct rings *r, uint64_t offset, uint16_t value)
{
	/* Relaxed: a hint to the driver; where its order matters, a fence follows. */
	store16(&r->used, offset, __ATOMIC_RELAXED, value);
	if (r->used.host != NULL)
		vmm_mark_dirty(r->used.map, r->used.gpa + offset, 2);
}

int virtq_enable_notification(const struct vmm_map *map, struct virtq *q, int *ret)
{
	struct rings r;
	uint16_t idx;
	int rc;

	*ret = 0;
	/* Nothing will be popped from a broken queue: to say "there is more" would make its owner spin. */
	if (MUTANT(LIVELOCK, q->broken.error != 0, 0))
		return 0;
	rc = rings_open(map, q, &r);
	if (rc != 0)
		return rc;
	if (r.packed) {
		*ret = packed_enable(&r, q);
		return 0;
	}
	if (q->flags & VIRTQ_EVENT_IDX)
		hint_store(&r, avail_event_offset(r.size), MUTANT(EVENT_POSITION, q->next_avail, q->next_used));
	else
		hint_store(&r, RING_FLAGS, 0);
	/* FENCE split-enable: full, store -> load. The wish for a kick is visible before avail.idx is read again. The driver
	 * writes avail.idx, fence, reads the wish; so either it sees the wish and kicks, or we see its index here. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	/* Relaxed: only compared here; the pop that follows loads it again with acquire. */
	idx = load16(&r.avail, RING_IDX, __ATOMIC_RELAXED);
	*ret = MUTANT(NO_RECHECK, idx != q->next_avail, 0);
	return 0;
}

int virtq_disable_notification(const struct vmm_map *map, struct virtq *q)
{
	struct rings r;
	int rc;

	if (q->broken.error != 0)
		return 0;
	rc = rings_open(map, q, &r);
	if (rc == 0 && r.packed)
		packed_wish(&r, EVENT_DISABLE, 0);
	else if (rc == 0 && !(q->flags & VIRTQ_EVENT_IDX))
		hint_store(&r, RING_FLAGS, USED_NO_NOTIFY);
	return rc;
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
