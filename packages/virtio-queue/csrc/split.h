/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Private to core.c: the layout of a split queue (VIRTIO 1.2, 2.7.5 to 2.7.8), and checked access to the words of a queue
 * of either format. */
#ifndef VIRTQ_SPLIT_H
#define VIRTQ_SPLIT_H

#include "core.h"
#include "mutants.h"

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

#define EVENT_BYTES 4u /* of a packed ring, for either side */

#define CHAIN_MAX_BYTES (UINT64_C(1) << 32)

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
typedef uint64_t __attribute__((may_alias, aligned(1))) unaligned_u64; /* indirect tables have no alignment */
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
	int packed;
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
	q->broken = MUTANT(UNBROKEN, q->fault, q->broken);
	return error;
}

/* Is [gpa, gpa + len) there, and does no border of two regions, and no host address, divide one of its aligned words? */
static int __attribute__((cold, noinline))
words_check(const struct vmm_map *map, uint64_t gpa, uint64_t len, int write, unsigned align)
{
	const struct vmm_region *region;
	int rc = vmm_check_from(map, gpa, len, write, &region);

	for (; rc == 0 && len != 0; region++) {
		uint64_t left = vmm_region_left(region, gpa), part = len < left ? len : left;

		/* SAFETY: vmm_check_from proved that the range runs through this region and the ones after it. */
		if ((gpa | (uintptr_t)(region->host + (gpa - region->base))) & (align - 1))
			return -EINVAL;
		gpa += part;
		len -= part;
	}
	return rc;
}

/* `align`: of the widest word that is read or written at host. Word by word through the map, none is wider than 4. */
static inline int span_open(const struct vmm_map *map, uint64_t gpa, uint64_t len, int write, unsigned align, struct span *ret)
{
	*ret = (struct span){.map = map, .gpa = gpa};
	if (vmm_get(map, gpa, len, write, &ret->host) == 0 && !((uintptr_t)ret->host & (align - 1)))
		return 0;
	ret->host = NULL;
	return words_check(map, gpa, len, write, align < 4 ? align : 4);
}

/* SAFETY (load and store of words, load_desc): the caller stays within the len that span_open checked, at offsets that are multiples of
 * the access size; span_open dropped host pointers that are not aligned for it. Where there is none, the access through the
 * map cannot fail: span_open found the word there, in one region and aligned, and maps do not change. */
static inline uint16_t load16(const struct span *s, uint64_t offset, int order)
{
	if (__builtin_expect(s->host == NULL, 0)) {
		uint16_t word = 0;

		(void)vmm_load16(s->map, s->gpa + offset, order, &word);
		return word;
	}
	if (order == __ATOMIC_ACQUIRE)
		return __atomic_load_n((const vmm_u16_alias *)(s->host + offset), __ATOMIC_ACQUIRE);
	return __atomic_load_n((const vmm_u16_alias *)(s->host + offset), __ATOMIC_RELAXED);
}

/* With a host pointer the caller marks the page dirty, once for a whole batch. */
static inline void store16(const struct span *s, uint64_t offset, int order, uint16_t value)
{
	if (__builtin_expect(s->host == NULL, 0))
		(void)vmm_store16(s->map, s->gpa + offset, order, value);
	else if (order == __ATOMIC_RELEASE)
		__atomic_store_n((vmm_u16_alias *)(s->host + offset), value, __ATOMIC_RELEASE);
	else
		__atomic_store_n((vmm_u16_alias *)(s->host + offset), value, __ATOMIC_RELAXED);
}

/* Only for a span of one word, which is always at host: words_check lets nothing divide it. */
static inline uint32_t load32(const struct span *s)
{
	return __atomic_load_n((const vmm_u32_alias *)s->host, __ATOMIC_RELAXED);
}

static inline void store32(const struct span *s, uint64_t offset, uint32_t value)
{
	if (__builtin_expect(s->host == NULL, 0))
		(void)vmm_store32(s->map, s->gpa + offset, __ATOMIC_RELAXED, value);
	else
		__atomic_store_n((vmm_u32_alias *)(s->host + offset), value, __ATOMIC_RELAXED);
}

static inline void load_desc(const struct span *s, uint32_t index, struct desc *ret)
{
	const volatile unaligned_u64 *words;
	uint64_t rest;

	if (__builtin_expect(s->host == NULL, 0)) {
		struct desc copy = {0};

		(void)vmm_read(s->map, s->gpa + (uint64_t)index * DESC_BYTES, &copy, DESC_BYTES);
		*ret = copy; /* not read into *ret, whose address must not escape: the caller keeps it in registers */
		return;
	}
	/* Volatile: each half is read exactly once, so that what is checked is what is used. A guest that writes
	 * meanwhile gets some mixture of old and new, which is checked like anything else. */
	words = (const volatile unaligned_u64 *)(s->host + (uint64_t)index * DESC_BYTES);
	ret->addr = words[0];
	rest = words[1];
	ret->len = (uint32_t)rest;
	ret->flags = (uint16_t)(rest >> 32);
	ret->next = (uint16_t)(rest >> 48);
}

static inline uint64_t avail_bytes(uint16_t size) { return 6u + 2u * (uint64_t)size; }
static inline uint64_t used_bytes(uint16_t size) { return 6u + USED_BYTES * (uint64_t)size; }
static inline uint64_t used_event_offset(uint16_t size) { return RING_ELEMENTS + 2u * (uint64_t)size; }
static inline uint64_t avail_event_offset(uint16_t size) { return RING_ELEMENTS + USED_BYTES * (uint64_t)size; }
static inline uint64_t used_offset(uint16_t size, uint16_t position)
{
	return RING_ELEMENTS + USED_BYTES * (uint64_t)(position & (size - 1u));
}
/* VIRTQ_IN_ORDER: is the batch the oldest chains in flight, as popped? `oldest` is the number of the first of them. */
static inline int in_order_check(const struct virtq *q, const struct virtio_batch *b, uint32_t oldest)
{
	if (q->order == NULL)
		return -EINVAL;
	for (uint32_t i = 0; i < b->nchains; i++)
		if (MUTANT(IN_ORDER_ANY, q->order[(oldest + i) & q->order_mask] != b->chains[i].head, 0))
			return -EINVAL;
	return 0;
}

/* Does the used element of a later chain speak for this one too? The driver takes what is skipped for used completely. */
static inline int spoken_for(const struct virtq *q, const struct virtio_chain *c, const struct virtio_chain *end)
{
	return (q->flags & VIRTQ_IN_ORDER) && c + 1 != end && MUTANT(IN_ORDER_BROKEN, c->error == 0, 1) &&
	       MUTANT(IN_ORDER_SHORT, c->written == c->writable, 1);
}

static inline uint16_t in_flight(const struct virtq *q) { return (uint16_t)(q->next_avail - q->next_used); }

static inline uint32_t slot_of(uint16_t position) { return position & ~VIRTQ_WRAP; }

static inline int ring_open(const struct vmm_map *map, struct virtq *q, uint32_t part, uint64_t gpa, uint64_t len,
			    unsigned align, int write, unsigned host_align, struct span *ret)
{
	if (gpa & (align - 1))
		return fault(q, VIRTQ_E_ALIGNMENT, VIRTQ_NO_HEAD, part, gpa, align);
	if (span_open(map, gpa, len, write, host_align, ret) != 0)
		return fault(q, VIRTQ_E_RING, VIRTQ_NO_HEAD, part, gpa, len);
	return 0;
}

/* The device area is written, and the ring itself where used descriptors take the place of available ones. The event
 * words of a split ring exist whether or not they are negotiated (2.7.6, 2.7.8); its descriptors may have any alignment
 * here, load_desc does not care. */
static inline int areas_open(const struct vmm_map *map, struct virtq *q, struct rings *r)
{
	uint16_t size = r->size;
	int packed = r->packed;
	int rc = ring_open(map, q, 0, q->desc, (uint64_t)size * DESC_BYTES, 16, packed, packed ? 16 : 1, &r->desc);
	unsigned align = packed ? EVENT_BYTES : 2;

	if (rc == 0)
		rc = ring_open(map, q, 1, q->avail, packed ? EVENT_BYTES : avail_bytes(size), align, 0, align, &r->avail);
	if (rc == 0)
		rc = ring_open(map, q, 2, q->used, packed ? EVENT_BYTES : used_bytes(size), 4, 1, 4, &r->used);
	return rc;
}

/* Size and format are copied here once: a reset that races with the device thread cannot move them under a loop. */
static inline int rings_open(const struct vmm_map *map, struct virtq *q, struct rings *ret)
{
	uint16_t size = q->size;
	int rc = vmm_map_check(map);

	if (rc != 0)
		return rc;
	ret->packed = (q->flags & VIRTQ_PACKED) != 0;
	if (!(q->flags & VIRTQ_READY))
		return fault(q, VIRTQ_E_NOT_READY, VIRTQ_NO_HEAD, 0, 0, 1);
	if (size == 0 || (!ret->packed && MUTANT(SIZE, size & (size - 1), 0)) || size > q->max_size || size > VIRTQ_MAX_SIZE)
		return fault(q, VIRTQ_E_SIZE, VIRTQ_NO_HEAD, 0, size, q->max_size);
	ret->size = size;
	if (ret->packed && slot_of(q->next_avail) >= size)
		return fault(q, VIRTQ_E_POSITION, VIRTQ_NO_HEAD, 0, slot_of(q->next_avail), size);
	if (ret->packed && slot_of(q->next_used) >= size)
		return fault(q, VIRTQ_E_POSITION, VIRTQ_NO_HEAD, 0, slot_of(q->next_used), size);
	/* Nor is a list in flight longer than the ring, so that a move by one ends in it. */
	if (ret->packed && q->busy > size)
		return fault(q, VIRTQ_E_POSITION, VIRTQ_NO_HEAD, 0, q->busy, size);
	return areas_open(map, q, ret);
}

#endif
