/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Device side of a virtqueue. Plain C11: no Python.h, no globals, no policy.
 *
 * One thread at a time per `struct virtq`. Guest memory is hostile and changes at any moment: each word is read
 * once into a local, the local is checked, the local is used. Every loop is bounded by the queue size.
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

/* Faults of the queue as a whole; those of one chain are VIRTIO_E_* in virtio_batch.h. */
#define VIRTQ_E_NOT_READY ENODEV    /* used before the driver enabled it */
#define VIRTQ_E_SIZE EDOM           /* size 0, above the maximum, or no power of two */
#define VIRTQ_E_ALIGNMENT EBADR     /* ring misaligned; position 0 descriptors, 1 available, 2 used */
#define VIRTQ_E_RING ENXIO          /* ring outside guest memory; position as above */
#define VIRTQ_E_AVAILABLE EBADMSG   /* avail.idx ran further ahead than there are descriptors: breaks the queue */
#define VIRTQ_E_HEAD ECHRNG         /* head index outside the descriptor table: breaks the queue */

#define VIRTQ_NO_HEAD UINT32_MAX

struct virtq_fault {
	int32_t error;     /* 0 or the negative error */
	uint32_t head;     /* head of the chain, or VIRTQ_NO_HEAD */
	uint32_t position; /* buffers accepted before the fault, or the ring part */
	uint32_t known;    /* 1: value and limit are recorded; 0 after a restore */
	uint64_t value; /* what was found */
	uint64_t limit; /* what would have been allowed */
};

struct virtq {
	uint64_t desc, avail, used; /* guest addresses */
	uint16_t max_size, size;
	uint16_t next_avail, next_used; /* free-running; their difference is the number of chains in flight */
	uint32_t flags;
	uint32_t num_added; /* used elements since the last notification decision, saturating at 65536 */
	struct virtq_fault fault;  /* the last fault */
	struct virtq_fault broken; /* the fault after which nothing is popped any more (error 0: none) */
};

/* Is the queue ready, and are its rings well formed and in memory? Fills `fault` when not. */
int virtq_check(const struct vmm_map *map, struct virtq *q);

/* Walk up to b->max_chains available chains into the batch (which is emptied first).
 * A chain that breaks a rule is taken and recorded with its error; the last such fault is left in `fault`.
 * -EINVAL: b->max_segs < q->size (a legal chain might never fit). */
int virtq_pop_batch(const struct vmm_map *map, struct virtq *q, struct virtio_batch *b);

/* Publish one used element for each chain of the batch, in order, then decide about the notification.
 * -EINVAL, nothing published: head >= size, written > writable, or more chains than are in flight. */
int virtq_complete_batch(const struct vmm_map *map, struct virtq *q, const struct virtio_batch *b, int *ret);

/* Publish one used element. -EINVAL, nothing published: head >= size or nothing in flight. */
int virtq_add_used(const struct vmm_map *map, struct virtq *q, uint16_t head, uint32_t len);

/* Must the driver be told about the elements published since the last call? Clears num_added. */
int virtq_needs_notification(const struct vmm_map *map, struct virtq *q, int *ret);

/* Ask for notifications; *ret = 1 when chains came meanwhile that nobody will announce. */
int virtq_enable_notification(const struct vmm_map *map, struct virtq *q, int *ret);

/* Ask for silence (a hint; with EVENT_IDX the stale avail_event already asks for it). */
int virtq_disable_notification(const struct vmm_map *map, struct virtq *q);

/* One deliberate heap overrun under VMM_SANITIZE (a test wants to see it reported), else -ENOSYS. */
int virtq_selftest_overrun(void);

#endif
