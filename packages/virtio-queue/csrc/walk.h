/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Private to core.c: one descriptor chain, from its head into segments. Rules: VIRTIO 1.2 section 2.7.5. */
#ifndef VIRTQ_WALK_H
#define VIRTQ_WALK_H

#include "split.h"

/* walk_chain: the batch has no room left for this chain. */
#define NO_ROOM 1

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
	if (MUTANT(UNASKED, !(q->flags & (VIRTQ_INDIRECT | VIRTQ_COMPATIBLE)), 0))
		return fault(q, VIRTIO_E_INDIRECT, head, position, d->flags, 0);
	if (MUTANT(NESTED, w->indirect, w->indirect > 1))
		return fault(q, VIRTIO_E_NESTED, head, position, d->flags, 0);
	if (MUTANT(COMBINED, (d->flags & DESC_NEXT) && !(q->flags & VIRTQ_COMPATIBLE), 0))
		return fault(q, VIRTIO_E_COMBINED, head, position, d->flags, 0);
	if (d->len == 0 || MUTANT(TABLE_SIZE, d->len % DESC_BYTES != 0, 0))
		return fault(q, VIRTIO_E_TABLE_SIZE, head, position, d->len, DESC_BYTES);
	/* WRITE in the referring descriptor is to be ignored (2.7.5.3.2), and the table has no alignment rule. */
	if (span_open(w->table.map, d->addr, d->len, 0, 1, &w->table) != 0)
		return fault(q, VIRTIO_E_TABLE_ADDR, head, position, d->addr, d->len);
	w->entries = d->len / DESC_BYTES;
	w->visited = 0;
	w->index = 0;
	w->indirect++;
	return 0;
}

/* Most buffers of a batch lie in one region: try the region of the one before first. */
static inline int buffer_check(const struct vmm_map *map, const struct desc *d, const struct vmm_region **hint)
{
	const struct vmm_region *region = *hint;
	int write = MUTANT(READ_ONLY, (d->flags & DESC_WRITE) != 0, 0);
	uint64_t offset;

	if (region != NULL) {
		offset = d->addr - region->base;
		if (offset < region->size && d->len <= region->size - offset + MUTANT(MEMORY_END, 0, 1) &&
		    !vmm_refuses(region, write))
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
	if (__builtin_expect(MUTANT(TOO_LONG, n == r->size, 0), 0))
		return fault(q, VIRTIO_E_LONG, head, n, n + 1u, r->size);
	if (__builtin_expect(MUTANT(TOTAL, sum + d->len, (uint32_t)sum + d->len) > CHAIN_MAX_BYTES, 0))
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
		if (__builtin_expect(w->index >= w->entries + MUTANT(NEXT_BOUND, 0, !w->indirect), 0))
			return fault(q, VIRTIO_E_INDEX, head, n, w->index, w->entries);
		if (__builtin_expect(MUTANT(LOOP, w->visited++ == w->entries, 0), 0))
			return fault(q, VIRTIO_E_LOOP, head, n, w->visited, w->entries);
		load_desc(&w->table, w->index, d);
		if (!(d->flags & DESC_INDIRECT))
			return 0;
		/* At most twice: inside a table it is a fault. */
		rc = enter_indirect(q, d, head, n, w);
		if (rc != 0)
			return rc;
	}
}

/* VIRTQ_COMPATIBLE: what the Rust crate virtio-queue makes of a broken chain. A rule that ends its iterator ends the chain
 * before the fault, as if it were shorter. */
static int __attribute__((cold, noinline)) compatible_end(int rc)
{
	switch (-rc) {
	case VIRTIO_E_INDEX:
	case VIRTIO_E_LOOP:
	case VIRTIO_E_LONG:
	case VIRTIO_E_NESTED:
	case VIRTIO_E_TABLE_SIZE:
	case VIRTIO_E_TABLE_ADDR:
	case VIRTIO_E_TOTAL:
		return 0;
	default:
		return rc;
	}
}

/* ... and a readable buffer behind writable ones (its Reader and Writer filter) goes where devices expect it. */
static void __attribute__((cold, noinline)) compatible_insert(struct virtio_seg *segs, uint32_t n)
{
	struct virtio_seg last = segs[n - 1];

	for (n--; n != 0 && segs[n - 1].writable; n--)
		segs[n] = segs[n - 1];
	segs[n] = last;
}

/* Walk the chain from `head` (already below r->size) into segs, at most `room` of them.
 * 0, NO_ROOM, or the chain's error with c->nsegs segments accepted. */
static int walk_chain(const struct rings *r, struct virtq *q, uint16_t head, struct virtio_seg *segs, uint32_t room,
		      const struct vmm_region **hint, struct virtio_chain *c)
{
	struct walk w = {.table = r->desc, .entries = r->size, .index = head};
	uint64_t sum = 0, readable = 0;
	uint32_t n = 0, was_writable = 0, writable;
	int compatible = (q->flags & VIRTQ_COMPATIBLE) != 0;
	struct desc d = {0};
	int rc;

	for (;;) {
		rc = next_buffer(q, &w, head, n, &d);
		if (rc != 0)
			break;
		writable = (d.flags & DESC_WRITE) != 0;
		if (__builtin_expect(MUTANT(ORDER, was_writable && !writable && !compatible, 0), 0)) {
			rc = fault(q, VIRTIO_E_ORDER, head, n, d.addr, d.len);
			break;
		}
		if (__builtin_expect(n == room && MUTANT(TOO_LONG, n != r->size, 1), 0))
			return NO_ROOM;
		rc = buffer_rules(r, q, &d, head, n, sum + (uint64_t)compatible, hint);
		if (rc != 0)
			break;
		segs[n++] = (struct virtio_seg){.addr = d.addr, .len = d.len, .writable = writable};
		sum += d.len;
		readable += writable ? 0 : d.len;
		if (__builtin_expect(was_writable && !writable, 0))
			compatible_insert(segs, n);
		was_writable |= writable;
		if (!(d.flags & DESC_NEXT))
			break;
		w.index = d.next;
	}
	if (MUTANT(TRUNCATED, compatible, 1) && rc != 0)
		rc = compatible_end(rc);
	q->counters.tables += (uint64_t)w.indirect;
	c->nsegs = (uint16_t)n;
	c->readable = rc == 0 ? readable : 0;
	c->writable = rc == 0 ? sum - readable : 0;
	return rc;
}

/* What the short way of a batch needs to know, in registers: stores into the batch could alias anything in memory. */
struct plain {
	const volatile uint64_t *table;
	const vmm_u16_alias *ring;
	uint64_t base, bytes; /* the region in which all buffers must lie */
	uint32_t entries, refused; /* flags that it leaves to walk_chain */
};

static inline int plain_open(const struct rings *r, const struct vmm_region *region, struct plain *ret)
{
	if (region == NULL || r->desc.host == NULL || r->avail.host == NULL || ((uintptr_t)r->desc.host & 7) ||
	    (region->flags & VMM_REGION_WRITEONLY))
		return 0;
	*ret = (struct plain){
		.table = (const volatile uint64_t *)r->desc.host,
		.ring = (const vmm_u16_alias *)(r->avail.host + RING_ELEMENTS),
		.base = region->base,
		.bytes = region->size,
		.entries = r->size,
		.refused = DESC_INDIRECT | (MUTANT(READ_ONLY, region->flags & VMM_REGION_READONLY, 0) ? DESC_WRITE : 0),
	};
	return 1;
}

/* A chain as nearly all are: direct, sound, in one region. Its number of segments; 0 for any other, of which nothing was
 * taken: walk_chain reads it again, says what is wrong with it, and uses nothing that was read here. */
static inline uint32_t walk_plain(const struct plain *p, uint32_t index, struct virtio_seg *segs, uint32_t room,
				  struct virtio_chain *c)
{
	uint32_t n = 0, was_writable = 0, writable, len, flags, most = room < p->entries ? room : p->entries;
	uint64_t sum = 0, readable = 0, addr, rest;

	do {
		if (n == most || index >= p->entries)
			return 0;
		/* SAFETY: span_open found all entries of the table at host, and index is below their number. Volatile, as in
		 * load_desc: what is checked is what is used. */
		addr = p->table[2 * (uint64_t)index];
		rest = p->table[2 * (uint64_t)index + 1];
		len = (uint32_t)rest;
		flags = (uint32_t)(rest >> 32);
		index = flags >> 16;
		writable = flags & DESC_WRITE;
		if ((flags & p->refused) || MUTANT(ORDER, writable < was_writable, 0) || addr - p->base >= p->bytes ||
		    len > p->bytes - (addr - p->base) + MUTANT(MEMORY_END, 0, 1))
			return 0;
		segs[n++] = (struct virtio_seg){.addr = addr, .len = len, .writable = writable / DESC_WRITE};
		sum += len;
		readable += writable ? 0 : len;
		was_writable = writable;
	} while (flags & DESC_NEXT);
	/* A sum of exactly 2^32 is for walk_chain too: VIRTQ_COMPATIBLE ends before it. */
	if (MUTANT(TOTAL, sum >= CHAIN_MAX_BYTES, 0))
		return 0;
	c->nsegs = (uint16_t)n;
	c->readable = readable;
	c->writable = sum - readable;
	return n;
}

#endif
