/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Rings shared with the kernel: it publishes with release, so who reads flags or an index acquires.
 * And the ring of native writes, which vCPUs fill.
 */
#define _GNU_SOURCE
#include "core.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { GFN_DIRTY = 1, GFN_RESET = 2 };

int kvmx_dirty_harvest(void *ring, uint32_t entries, uint32_t *next, struct kvmx_dirty *ret)
{
	/* SAFETY: the caller's mapping has `entries` of these, page aligned; *next stays below it. */
	struct kx_dirty_gfn *gfns = ring;
	if (!entries || *next >= entries)
		return -EINVAL;
	uint32_t n = 0;
	while (n < entries) {
		struct kx_dirty_gfn *gfn = &gfns[*next];
		if (__atomic_load_n(&gfn->flags, __ATOMIC_ACQUIRE) != GFN_DIRTY)
			break;
		ret[n].slot = gfn->slot;
		ret[n].page = gfn->offset;
		n++;
		__atomic_store_n(&gfn->flags, GFN_RESET, __ATOMIC_RELEASE);
		*next = *next + 1 == entries ? 0 : *next + 1;
	}
	return (int)n;
}

int kvmx_coalesced_drain(void *ring, uint32_t bytes, struct kvmx_write *ret)
{
	/* SAFETY: the caller's mapping is `bytes` long and page aligned; both indices are bounded before use. */
	struct kx_coalesced_mmio_ring *head = ring;
	const struct kx_coalesced_mmio *entries = (const void *)(head + 1);
	if (bytes < sizeof *head + sizeof *entries)
		return -EINVAL;
	uint32_t most = (bytes - (uint32_t)sizeof *head) / (uint32_t)sizeof *entries;
	uint32_t first = head->first, last = __atomic_load_n(&head->last, __ATOMIC_ACQUIRE);
	if (first >= most || last >= most)
		return -EPROTO;
	int n = 0;
	for (; first != last; first = first + 1 == most ? 0 : first + 1, n++) {
		if (entries[first].len > 8)
			return -EPROTO;
		ret[n].addr = entries[first].phys_addr;
		ret[n].size = entries[first].len;
		ret[n].pio = entries[first].pio;
		__builtin_memcpy(&ret[n].data, entries[first].data, sizeof ret[n].data);
	}
	__atomic_store_n(&head->first, last, __ATOMIC_RELEASE);
	return n;
}

/* ---- native writes ----
 * A writer takes places by moving `tail`, fills them, and publishes each by its turn: its number plus 1. A place is
 * free when `head` has passed it. Sleep and wake are Dekker's: the reader stores head, then looks at the next turn;
 * a writer stores its turn, then looks at head. One of them sees the other. */
static int take_places(struct kvmx_ring *r, uint32_t count, uint64_t *ret)
{
	for (;;) {
		/* Head first: it never passes the tail that is read after it. */
		uint64_t head = __atomic_load_n(&r->head, __ATOMIC_ACQUIRE);
		*ret = __atomic_load_n(&r->tail, __ATOMIC_RELAXED);
		if (*ret - head + count <= r->size) {
			if (__atomic_compare_exchange_n(&r->tail, ret, *ret + count, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
				return 1;
		} else if (__atomic_load_n(&r->head, __ATOMIC_RELAXED) == head) {
			return 0;
		}
	}
}

static void wake(const struct kvmx_ring *r, uint64_t first, uint64_t count)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&r->head, __ATOMIC_RELAXED) - first >= count) /* still behind, or already past */
		return;
	uint64_t one = 1;
	if (write(r->fd, &one, sizeof one) < 0)
		return; /* EAGAIN: the counter is full, so its reader is already awake */
}

int kvmx_ring_put(struct kvmx_ring *r, const struct kvmx_exit *e, const uint8_t *page)
{
	uint64_t first;
	if (!take_places(r, e->count, &first))
		return 0;
	for (uint32_t i = 0; i < e->count; i++) {
		struct kvmx_slot *slot = &r->slots[(first + i) & (r->size - 1)];
		slot->write = (struct kvmx_write){.addr = e->addr, .size = e->size, .pio = !e->is_mmio};
		/* SAFETY: kvmx_decode bounded data_offset + count * size by the page; size <= 8. */
		memcpy(&slot->write.data, page + e->data_offset + (uint64_t)i * e->size, e->size);
		__atomic_store_n(&slot->turn, first + i + 1, __ATOMIC_RELEASE);
	}
	if (r->fd >= 0)
		wake(r, first, e->count);
	return 1;
}

int kvmx_ring_take(struct kvmx_ring *r, struct kvmx_write *ret, uint32_t most)
{
	uint64_t head = r->head;
	uint32_t n = 0;
	for (;;) {
		uint32_t before = n;
		for (; n < most; n++, head++) {
			const struct kvmx_slot *slot = &r->slots[head & (r->size - 1)];
			if (__atomic_load_n(&slot->turn, __ATOMIC_ACQUIRE) != head + 1)
				break;
			ret[n] = slot->write;
		}
		__atomic_store_n(&r->head, head, __ATOMIC_RELEASE);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (n == before || n == most)
			return (int)n;
	}
}
