/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Rings shared with the kernel: it publishes with release, so who reads flags or an index acquires.
 */
#include "core.h"

#include <errno.h>

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
