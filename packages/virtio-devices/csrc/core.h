/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * core.h - the virtio-blk data path: one batch of requests, one call.
 *
 * No policy and no Python: what the disk allows arrives in struct vblk_disk, what happened leaves in struct
 * vblk_report. The Python data path (virtio_devices/_blk_python.py) is the readable specification of the same work;
 * a property test holds the two equal.
 */
#ifndef VIRTIO_DEVICES_CORE_H
#define VIRTIO_DEVICES_CORE_H

#include <stdint.h>

#include "virtio_batch.h"
#include "vmm_access.h"

#define VBLK_ABI 1u
#define VBLK_DISK_ABI (((uint64_t)VBLK_ABI << 32) | sizeof(struct vblk_disk))
#define VBLK_ID_BYTES 20
#define VBLK_MAX_RANGES 32 /* discard / write-zeroes segments that one request may carry at most */

#define VBLK_READ_ONLY 1u      /* refuse everything that changes the disk */
#define VBLK_FLUSH 2u          /* VIRTIO_BLK_F_FLUSH negotiated */
#define VBLK_DISCARD 4u        /* VIRTIO_BLK_F_DISCARD negotiated */
#define VBLK_WRITE_ZEROES 8u   /* VIRTIO_BLK_F_WRITE_ZEROES negotiated */
#define VBLK_WRITE_THROUGH 16u /* fdatasync before a write is answered */

struct vblk_disk {
    uint64_t abi;      /* VBLK_DISK_ABI */
    uint64_t capacity; /* sectors of 512 bytes */
    int32_t fd;
    uint32_t flags;               /* VBLK_* */
    uint32_t max_discard_sectors; /* per segment */
    uint32_t max_discard_ranges;  /* <= VBLK_MAX_RANGES */
    uint32_t max_zeroes_sectors;  /* per segment */
    uint32_t max_zeroes_ranges;   /* <= VBLK_MAX_RANGES */
    uint8_t id[VBLK_ID_BYTES];    /* serial, NUL padded */
    uint32_t has_id;
};

struct vblk_report {
    uint64_t read_bytes;    /* from the image into the guest */
    uint64_t written_bytes; /* from the guest into the image */
    uint64_t error_offset;  /* byte offset of the request that the host failed first */
    int32_t error;          /* its errno (positive), 0: the host failed none */
    uint32_t error_type;    /* its request type */
    uint32_t errors;        /* requests that the host failed */
    uint32_t broken;        /* chains with an error: popped that way, or without a byte for the status (-ENODATA) */
};

_Static_assert(sizeof(struct vblk_disk) == 64, "vblk_disk is ABI");
_Static_assert(sizeof(struct vblk_report) == 40, "vblk_report is ABI");

/* Answer every chain of the batch whose error is 0: do the I/O, write the status byte, set written. A chain without a
 * writable byte, or with one outside writable guest memory, cannot be answered: nothing is done, its error becomes
 * -ENODATA and written stays 0.
 * 0, or -EPROTO for a structure of another version, or -EINVAL for impossible limits (both: nothing was done). */
int vblk_process(const struct vmm_map *map, struct virtio_batch *batch, const struct vblk_disk *disk,
                 struct vblk_report *ret);

/* The same for callers that hold addresses (vmm_memory.AccessMap.address, virtio_queue.ChainBatch.address). */
int vblk_process_at(uintptr_t map, uintptr_t batch, const struct vblk_disk *disk, struct vblk_report *ret);

/* Under VMM_SANITIZE one deliberate heap overrun (a test proves that it is reported); otherwise -ENOSYS. */
int vblk_selftest_overrun(void);

#endif
