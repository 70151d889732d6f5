/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Device side of a virtqueue. Plain C11: no Python.h, no globals, no policy.
 *
 * One thread at a time per `struct virtq`. Guest memory is hostile and changes at any moment: each word is read
 * once into a local, the local is checked, the local is used. Every loop is bounded by the queue size.
 *
 * Each place that orders memory accesses has a name, in a comment `FENCE name: kind. what it orders`; the programs that
 * the notification checker explores have the same names (a test compares them). Several names: commas between them.
 *
 * Functions return 0, -VIRTIO_E_* or -VIRTQ_E_* (the guest broke a rule; `fault` says which), -EINVAL (the caller
 * did) or -EPROTO (map or batch come from another ABI). Results leave through the last parameter.
 */
#ifndef VIRTQ_CORE_H
#define VIRTQ_CORE_H

#include <stdint.h>

#include "virtio_batch.h"
#include "vmm_access.h"

#define VIRTQ_MAX_SIZE 32768u
/* A batch is full with the chain that brings its buffers to this sum. Whoever processes a batch in one call cannot be
 * stopped meanwhile, and chains of 4 GiB each, over a little memory again and again, would take it minutes. */
#define VIRTQ_BATCH_BYTES (UINT64_C(1) << 28)

/* virtq.flags */
#define VIRTQ_READY 1u
#define VIRTQ_EVENT_IDX 2u
#define VIRTQ_INDIRECT 4u
#define VIRTQ_PACKED 8u /* VIRTIO_F_RING_PACKED: `held` and `order` must be there, positions begin at VIRTQ_WRAP */

#define VIRTQ_IN_ORDER 32u   /* VIRTIO_F_IN_ORDER: `order` must be there, in a split ring too */
#define VIRTQ_COMPATIBLE 16u /* split: a chain that breaks a rule ends there (walk.h) */

#define VIRTQ_WRAP 0x8000u /* packed positions: 15 bits of index and the wrap counter, which begins as 1 (2.8.1) */

/* Faults of the queue as a whole; those of one chain are VIRTIO_E_* in virtio_batch.h. */
#define VIRTQ_E_NOT_READY ENODEV    /* used before the driver enabled it */
#define VIRTQ_E_SIZE EDOM           /* size 0, above the maximum, or (split) no power of two */
#define VIRTQ_E_ALIGNMENT EBADR     /* ring misaligned; position 0 descriptor area, 1 driver area, 2 device area */
#define VIRTQ_E_RING ENXIO          /* ring outside guest memory, or a border of regions divides a word of it; position as above */
#define VIRTQ_E_POSITION ESTALE     /* packed: our place in the ring is behind its end, which moved without a reset */
#define VIRTQ_E_AVAILABLE EBADMSG   /* avail.idx ran further ahead than there are descriptors: breaks the queue */
#define VIRTQ_E_HEAD ECHRNG         /* head index outside the descriptor table: breaks the queue */

#define VIRTQ_E_ID EEXIST           /* packed: buffer id already in flight, or above the table: breaks the queue */
#define VIRTQ_E_ENDLESS ENOSPC      /* packed: a list that does not end before descriptors we hold: breaks the queue */

#define VIRTQ_NO_HEAD UINT32_MAX

struct virtq_fault {
	int32_t error;     /* 0 or the negative error */
	uint32_t head;     /* head of the chain, or VIRTQ_NO_HEAD */
	uint32_t position; /* buffers accepted before the fault, or the ring part */
	uint32_t known;    /* 1: value and limit are recorded; 0 after a restore */
	uint64_t value; /* what was found */
	uint64_t limit; /* what would have been allowed */
};

/* What happened since the queue was made or reset: for statistics, and no part of its state. */
struct virtq_counters {
	uint64_t chains;     /* completed */
	uint64_t tables;     /* indirect tables walked; once more for a chain that was given back */
	uint64_t wraps;      /* times that the used position passed the end of the ring */
	uint64_t notified;   /* decisions to interrupt the driver */
	uint64_t suppressed; /* decisions not to, although chains had been completed since the last one */
};

/* A chain of a packed ring in flight, by its buffer id. */
struct virtq_held {
	uint32_t order;  /* running number of its pop */
	uint16_t slots;  /* descriptors it takes up, 0: not in flight */
	uint16_t chosen; /* during its completion: what slots was */
};

struct virtq {
	uint64_t desc, avail, used; /* guest addresses: descriptor, driver and device area */
	uint16_t max_size, size;
	uint16_t next_avail, next_used; /* split: free-running, their difference is in flight; packed: slot and wrap counter */
	uint32_t flags;
	uint32_t num_added; /* used elements (packed: descriptors) since the last notification decision, at most 65536 */
	/* Packed only, but for order and order_mask. The owner provides both tables, zeroed, for as long as the queue lives. */
	uint32_t popped;          /* running number of the next pop */
	uint32_t in_flight, busy; /* chains in flight, and the descriptors they take up */
	uint32_t ids;             /* entries of held: any id (65536), or as many as the owner expects */
	uint32_t order_mask;      /* entries of order less 1; a power of two, at least max_size */
	struct virtq_held *held;
	uint16_t *order; /* head by number of pop; of a split ring that is its available index */
	struct virtq_fault fault;  /* the last fault */
	struct virtq_fault broken; /* the fault after which nothing is popped any more (error 0: none) */
	struct virtq_counters counters;
};

/* Is the queue ready, and are its rings well formed and in memory? Fills `fault` when not. */
int virtq_check(const struct vmm_map *map, struct virtq *q);

/* Walk up to b->max_chains available chains into the batch (which is emptied first).
 * A chain that breaks a rule is taken and recorded with its error; the last such fault is left in `fault`.
 * -EINVAL: b->max_segs < q->size (a legal chain might never fit). */
int virtq_pop_batch(const struct vmm_map *map, struct virtq *q, struct virtio_batch *b);

/* Publish one used element for each chain of the batch, in order, then decide about the notification.
 * -EINVAL, nothing published: head >= size (packed: not in flight, or twice), written > writable, or more chains than
 * are in flight; with VIRTQ_IN_ORDER, others than the oldest in flight or in another order. Then chains whose buffers
 * were used completely need no element of their own before the last one of the batch (2.7.9, 2.8.9). */
int virtq_complete_batch(const struct vmm_map *map, struct virtq *q, const struct virtio_batch *b, int *ret);

/* Publish one used element. -EINVAL, nothing published: head >= size (packed: not in flight) or nothing in flight. */
int virtq_add_used(const struct vmm_map *map, struct virtq *q, uint16_t head, uint32_t len);

/* Give the last `count` popped chains back. -EINVAL, nothing changed: so many are not in flight, or (packed, where it is
 * known) one of them is complete. */
int virtq_undo_pop(struct virtq *q, uint32_t count);

/* Must the driver be told about the elements published since the last call? Clears num_added. */
int virtq_needs_notification(const struct vmm_map *map, struct virtq *q, int *ret);

/* Ask for notifications; *ret = 1 when chains came meanwhile that nobody will announce. */
int virtq_enable_notification(const struct vmm_map *map, struct virtq *q, int *ret);

/* Ask for silence (a hint; with EVENT_IDX the stale avail_event already asks for it). */
int virtq_disable_notification(const struct vmm_map *map, struct virtq *q);

/* Copy the readable bytes of all sound chains, one behind the other, to `to`; *ret = bytes.
 * -ENOBUFS: more than `size`. -EFAULT, -EACCES: a buffer went away since the pop. `to` may hold some of them then. */
int virtq_gather(const struct vmm_map *map, const struct virtio_batch *b, uint8_t *to, uint64_t size, uint64_t *ret);

/* Deal `size` bytes out to the writable buffers of the chains, in order: `sizes[i]` to chain i, or without `sizes` as many
 * as it takes. Each chain's `written` becomes what it got; *ret = bytes.
 * -EINVAL: a size exceeds its chain's writable bytes, or all of them `size`; nothing is written then.
 * -EFAULT, -EACCES: a buffer went away since the pop; chains before it have got theirs. */
int virtq_scatter(const struct vmm_map *map, struct virtio_batch *b, const uint8_t *from, uint64_t size,
		  const uint32_t *sizes, uint64_t *ret);

/* One deliberate heap overrun under VMM_SANITIZE (a test wants to see it reported), else -ENOSYS. */
int virtq_selftest_overrun(void);

#endif
