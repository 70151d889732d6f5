/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * A batch of descriptor chains: the interface between a queue (virtio-queue) and a device's data path.
 *
 * The memory belongs to the caller. `virtq_pop_batch` fills `chains` and `segs`; the device does the I/O and
 * stores the bytes it wrote into `chains[i].written`; `virtq_complete_batch` publishes the used elements.
 * Everything in here is a checked copy of what the guest wrote, so it cannot change under the device.
 *
 * Public: each consumer commits an identical copy of this file (a test compares them).
 */
#ifndef VIRTIO_BATCH_H
#define VIRTIO_BATCH_H

#include <errno.h>
#include <stdint.h>

#define VIRTIO_BATCH_ABI 1u

/* `virtio_chain.error` is 0 or the negative of one of these; each stands for one broken rule (VIRTIO 1.2 section). */
#define VIRTIO_E_INDEX EINVAL          /* `next` outside its table (2.7.5) */
#define VIRTIO_E_LOOP ELOOP            /* more steps than the table has entries: a cycle (2.7.5.2) */
#define VIRTIO_E_LONG E2BIG            /* more buffers than the queue has entries (2.7.5.3.1) */
#define VIRTIO_E_INDIRECT EOPNOTSUPP   /* indirect descriptor, feature not negotiated (2.7.5.3.1) */
#define VIRTIO_E_NESTED EMLINK         /* indirect descriptor inside an indirect table (2.7.5.3.1) */
#define VIRTIO_E_COMBINED ENOTUNIQ     /* INDIRECT and NEXT in one descriptor (2.7.5.3.1) */
#define VIRTIO_E_TABLE_SIZE EMSGSIZE   /* table empty or not a multiple of 16 bytes (2.7.5.3) */
#define VIRTIO_E_TABLE_ADDR EADDRNOTAVAIL /* indirect table outside guest memory */
#define VIRTIO_E_ORDER EILSEQ          /* device-readable buffer after a device-writable one (2.7.4.2) */
#define VIRTIO_E_TOTAL EOVERFLOW       /* buffers sum to more than 2^32 bytes (2.7.5.2) */
#define VIRTIO_E_ADDR EFAULT           /* buffer outside guest memory */
#define VIRTIO_E_READONLY EACCES       /* device-writable buffer in read-only memory */

/* One buffer, `len` bytes of guest memory from guest address `addr`, inside guest memory when it was popped. */
struct virtio_seg {
	uint64_t addr;
	uint32_t len;
	uint32_t writable; /* 1: the device may write it and must not rely on its content; 0: it may only read it */
};

/* One chain. All readable segments come before all writable ones.
 * With `error` set, `readable` and `writable` are 0 and `nsegs` counts the segments accepted before the fault:
 * the device must not use them, and completes the chain with `written` 0 (or asks for a reset). */
struct virtio_chain {
	uint32_t first_seg; /* index into virtio_batch.segs */
	uint16_t nsegs;
	uint16_t head;     /* descriptor index that names the chain in the used ring */
	uint32_t written;  /* out: bytes written into the writable segments; becomes used.len */
	int32_t error;     /* 0 or -VIRTIO_E_* */
	uint64_t readable; /* sum of the readable lengths */
	uint64_t writable; /* sum of the writable lengths */
};

struct virtio_batch {
	uint64_t abi; /* VIRTIO_BATCH_ABI << 32 | sizeof(struct virtio_batch) */
	uint32_t max_chains, max_segs;
	uint32_t nchains, nsegs;
	struct virtio_chain *chains;
	struct virtio_seg *segs;
};

#define VIRTIO_BATCH_ABI_WORD (((uint64_t)VIRTIO_BATCH_ABI << 32) | sizeof(struct virtio_batch))

_Static_assert(sizeof(struct virtio_seg) == 16, "read as '<QII' from Python");
_Static_assert(sizeof(struct virtio_chain) == 32, "read as '<IHHIiQQ' from Python");

/* 0, or -EPROTO when the caller was built against another layout of this header. */
static inline int virtio_batch_check(const struct virtio_batch *b)
{
	return b->abi == VIRTIO_BATCH_ABI_WORD && b->nchains <= b->max_chains && b->nsegs <= b->max_segs ? 0 : -EPROTO;
}

#endif
