/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * stream.h - one direction of a descriptor chain as a stream of bytes, however the driver cut it (VIRTIO 1.2, 2.7.4.1).
 */
#ifndef VIRTIO_DEVICES_STREAM_H
#define VIRTIO_DEVICES_STREAM_H

#include <errno.h>
#include <stdint.h>

#include "virtio_batch.h"
#include "vmm_access.h"

/* Do the segments of every chain lie in the batch? 0, or -EINVAL. A device asks once, before it makes streams of them. */
static inline int stream_bounds(const struct virtio_batch *batch)
{
    uint32_t i;

    for (i = 0; i < batch->nchains; i++) {
        const struct virtio_chain *chain = &batch->chains[i];

        if (chain->first_seg > batch->nsegs || chain->nsegs > batch->nsegs - chain->first_seg)
            return -EINVAL;
    }
    return 0;
}

/* The bytes of one direction of a chain, as a stream. */
struct stream {
    const struct vmm_map *map;
    const struct virtio_seg *seg, *end;
    uint32_t writable;
    uint32_t offset; /* into seg */
};

/* The next piece of at most limit bytes; 0 at the end of the stream. */
static inline uint32_t stream_next(struct stream *s, uint64_t limit, uint64_t *addr)
{
    while (limit != 0 && s->seg != s->end) {
        uint32_t left = s->seg->len - s->offset;

        if (!s->seg->writable == !s->writable && left != 0) {
            uint32_t part = limit < left ? (uint32_t)limit : left;

            *addr = s->seg->addr + s->offset;
            s->offset += part;
            return part;
        }
        s->seg++;
        s->offset = 0;
    }
    return 0;
}

/* Is the next len bytes of the stream guest memory that may be used this way? Does not move the stream. */
static inline int stream_check(struct stream s, uint64_t len)
{
    uint64_t addr = 0;
    uint32_t part;
    int rc = 0;

    while (rc == 0 && (part = stream_next(&s, len, &addr)) != 0) {
        rc = vmm_check(s.map, addr, part, s.writable != 0);
        len -= part;
    }
    return rc != 0 ? rc : len != 0 ? -EFAULT : 0;
}

static inline int stream_read(struct stream *s, void *dst, uint64_t len)
{
    uint8_t *to = dst;
    uint64_t addr = 0;
    uint32_t part;

    while ((part = stream_next(s, len, &addr)) != 0) {
        int rc = vmm_read(s->map, addr, to, part);

        if (rc != 0)
            return rc;
        to += part;
        len -= part;
    }
    return len != 0 ? -EFAULT : 0;
}

static inline int stream_write(struct stream *s, const void *src, uint64_t len)
{
    const uint8_t *from = src;
    uint64_t addr = 0;
    uint32_t part;

    while ((part = stream_next(s, len, &addr)) != 0) {
        int rc = vmm_write(s->map, addr, from, part);

        if (rc != 0)
            return rc;
        from += part;
        len -= part;
    }
    return len != 0 ? -EFAULT : 0;
}

static inline void stream_mark_dirty(struct stream s, uint64_t len)
{
    uint64_t addr = 0;
    uint32_t part;

    while ((part = stream_next(&s, len, &addr)) != 0) {
        vmm_mark_dirty(s.map, addr, part);
        len -= part;
    }
}

#endif
