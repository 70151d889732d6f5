/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * Frames for the guest, from the descriptor into receive buffers.
 * See net.h. Rules: VIRTIO 1.2 section 5.1.6.4. */
#define _GNU_SOURCE
#include <unistd.h>

#include "net_work.h"

#define MAX_FRAMES 64u /* a call: frames that are dropped use no chain up */
#define SMALL 2048u    /* one frame of an ordinary link */

/* The writable bytes of chains [chain, end) of a batch, one after the other. */
struct span {
    const struct virtio_batch *batch;
    uint32_t chain, end;
    struct stream s;
};

static struct span span_open(const struct work *w, uint32_t chain, uint32_t end)
{
    return (struct span){
        .batch = w->batch, .chain = chain, .end = end, .s = chain_stream(w->map, w->batch, chain, 1)};
}

/* As stream_next, over the ends of chains. */
static uint32_t span_next(struct span *p, uint64_t limit, uint64_t *addr)
{
    for (;;) {
        uint32_t part = stream_next(&p->s, limit, addr);

        if (part != 0 || limit == 0 || ++p->chain >= p->end)
            return part;
        p->s = chain_stream(p->s.map, p->batch, p->chain, 1);
    }
}

static void span_skip(struct span *p, uint64_t len)
{
    uint64_t addr;
    uint32_t part;

    while ((part = span_next(p, len, &addr)) != 0)
        len -= part;
}

static int span_write(struct span *p, const uint8_t *src, uint64_t len)
{
    uint64_t addr;
    uint32_t part;
    int rc = 0;

    while (rc == 0 && (part = span_next(p, len, &addr)) != 0) {
        rc = vmm_write(p->s.map, addr, src, part);
        src += part;
        len -= part;
    }
    return rc != 0 || len != 0 ? -EFAULT : 0;
}

static int span_read(struct span *p, uint8_t *dst, uint64_t len)
{
    uint64_t addr;
    uint32_t part;
    int rc = 0;

    while (rc == 0 && (part = span_next(p, len, &addr)) != 0) {
        rc = vmm_read(p->s.map, addr, dst, part);
        dst += part;
        len -= part;
    }
    return rc != 0 || len != 0 ? -EFAULT : 0;
}

static void span_mark_dirty(struct span *p, uint64_t len)
{
    uint64_t addr;
    uint32_t part;

    while ((part = span_next(p, len, &addr)) != 0) {
        vmm_mark_dirty(p->s.map, addr, part);
        len -= part;
    }
}

/* Host fragments of the buffers that the next frame's body may go to straight away; entries from iov[1] on. */
static size_t rx_window(struct work *w, struct iovec *iov)
{
    uint32_t end = w->port->flags & VNET_MRG ? w->usable : w->report->used + 1;
    uint64_t want = w->port->flags & VNET_MRG && w->port->large == 0 ? SMALL : VNET_BODY_MAX;
    struct span p = span_open(w, w->report->used, end);
    size_t used = 1, n = 0;

    w->in_place = 0;
    if (w->port->capture != NULL)
        return used; /* what is captured must be what was received, not what the guest made of it meanwhile */
    span_skip(&p, VNET_HEADER);
    while (w->in_place < want && used < VNET_IOVS - 1) {
        uint64_t addr = 0;
        uint32_t part = span_next(&p, want - w->in_place, &addr);

        if (part == 0 || vmm_iov(w->map, addr, part, 1, &iov[used], VNET_IOVS - 1 - used, &n) != 0)
            break; /* a buffer that is gone, or in many regions: the frame's rest is copied, and that finds out */
        used += n;
        w->in_place += part;
    }
    return used;
}

/* How much of the window a read of `size` bytes, or -errno, may have changed. */
static uint64_t rx_filled(const struct work *w, ssize_t size)
{
    uint64_t body = size > (ssize_t)VNET_HEADER ? (uint64_t)size - VNET_HEADER : 0;

    if (size < 0 && size != -EAGAIN)
        return w->in_place; /* it failed half way: the kernel does not say how far it came */
    return body < w->in_place ? body : w->in_place;
}

/* Read the next frame: header into scratch, body into its buffers as far as rx_window knows them, the rest into scratch
 * as well, where it would lie if all of it was there. The size, 0 at the end of the descriptor, or -errno. */
static ssize_t rx_read(struct work *w)
{
    struct iovec iov[VNET_IOVS];
    size_t n = rx_window(w, iov);
    uint64_t filled;
    ssize_t size;

    iov[0] = (struct iovec){w->port->scratch, VNET_HEADER};
    iov[n] = (struct iovec){w->port->scratch + VNET_HEADER + w->in_place, VNET_BODY_MAX + 1 - w->in_place};
    do
        /* SAFETY: guest entries came from vmm_iov on a map that the caller keeps alive; scratch has VNET_SCRATCH
         * bytes, and in_place is at most VNET_BODY_MAX. */
        size = readv(w->port->fd, iov, (int)n + 1);
    while (size < 0 && errno == EINTR);
    if (size < 0)
        size = -errno;
    filled = rx_filled(w, size);
    if (filled != 0) {
        struct span p = span_open(w, w->report->used, w->usable);

        span_skip(&p, VNET_HEADER);
        span_mark_dirty(&p, filled);
    }
    return size;
}

/* How many chains take `need` bytes; 0: those there are do not. */
static uint32_t rx_chains(const struct work *w, uint64_t need)
{
    uint32_t first = w->report->used, end = w->port->flags & VNET_MRG ? w->usable : first + 1, i;
    uint64_t sum = 0;

    for (i = first; i < end && sum < need; i++)
        sum += w->batch->chains[i].writable;
    return sum < need ? 0 : i - first;
}

/* The frame stays here until the driver has given more buffers. */
static void rx_hold(struct work *w, uint32_t size)
{
    uint32_t body = size - VNET_HEADER, part = body < w->in_place ? body : w->in_place;

    if (part != 0) {
        struct span p = span_open(w, w->report->used, w->usable);

        span_skip(&p, VNET_HEADER);
        if (span_read(&p, w->port->scratch + VNET_HEADER, part) != 0)
            found_broken(w, w->report->used);
    }
    w->port->pending = size;
    w->report->stop = VNET_STARVED;
}

/* Put header, and what of the body is in scratch, into n chains and finish them. */
static int rx_finish(struct work *w, uint32_t n, uint32_t size)
{
    uint32_t first = w->report->used, body = size - VNET_HEADER, left = size, i;
    uint8_t *header = w->port->scratch;
    struct span p = span_open(w, first, first + n);
    uint16_t buffers = (uint16_t)n;

    memcpy(header + 10, &buffers, sizeof(buffers));
    if (span_write(&p, header, VNET_HEADER) != 0)
        return -EFAULT;
    if (body > w->in_place) {
        span_skip(&p, w->in_place);
        if (span_write(&p, header + VNET_HEADER + w->in_place, body - w->in_place) != 0)
            return -EFAULT;
    }
    for (i = first; i < first + n; i++) {
        struct virtio_chain *chain = &w->batch->chains[i];

        chain->written = chain->writable < left ? (uint32_t)chain->writable : left;
        left -= chain->written;
        w->room -= chain->writable;
    }
    w->report->used += n;
    w->report->merged += n > 1;
    return 0;
}

/* Deliver, drop or hold the frame of `size` bytes that rx_read or an earlier call left. */
static void rx_frame(struct work *w, uint32_t size)
{
    struct vnet_port *port = w->port;
    uint32_t body = size - VNET_HEADER, n;
    uint8_t *header = port->scratch;

    port->pending = 0;
    if (size < VNET_HEADER + VNET_BODY_MIN || body > VNET_BODY_MAX || !header_ok(header, port->flags)) {
        w->report->invalid++;
        return;
    }
    /* VIRTIO 1.2 section 5.1.6.4.1: without GUEST_CSUM, flags are 0; no bit that the driver cannot know. */
    header[0] &= port->flags & VNET_CSUM ? F_NEEDS_CSUM | F_DATA_VALID : 0;
    port->large = body > SMALL ? MAX_FRAMES : port->large - (port->large != 0);
    n = rx_chains(w, size);
    if (n == 0 && port->flags & VNET_MRG) {
        rx_hold(w, size);
    } else if (n == 0) {
        w->report->oversized++;
    } else if (rx_finish(w, n, size) != 0) {
        found_broken(w, w->report->used);
    } else {
        count(w, header, body);
        if (port->capture != NULL)
            capture(port, header + VNET_HEADER, body);
    }
}

/* Is there reason to stop before the next frame is read? */
static int rx_enough(struct work *w)
{
    if (w->report->used == w->usable) {
        w->report->stop = VNET_STARVED;
        return 1;
    }
    /* A large frame would have to be copied twice: rather ask for the chains beyond this batch first. */
    return capture_full(w->port) || (w->port->flags & VNET_MRG && w->port->large != 0 && w->report->used != 0 &&
                                     w->room < VNET_HEADER + VNET_BODY_MAX);
}

int vnet_receive(const struct vmm_map *map, struct virtio_batch *batch, struct vnet_port *port, struct vnet_report *ret)
{
    struct work w = {.map = map, .batch = batch, .port = port, .report = ret};
    int rc = check_arguments(map, batch, port);
    uint32_t frames;

    memset(ret, 0, sizeof(*ret));
    if (rc != 0)
        return rc;
    port->capture_used = 0;
    find_usable(&w, 1);
    for (frames = 0; frames < MAX_FRAMES && ret->stop == VNET_MORE && !rx_enough(&w); frames++) {
        ssize_t size = port->pending;

        w.in_place = 0;
        if (size == 0)
            size = rx_read(&w);
        if (size > 0) {
            rx_frame(&w, (uint32_t)size);
        } else if (size == -EAGAIN) {
            ret->stop = VNET_BLOCKED;
        } else {
            ret->stop = VNET_CLOSED;
            ret->error = (int32_t)-size;
        }
    }
    return 0;
}

int vnet_receive_at(uintptr_t map, uintptr_t batch, struct vnet_port *port, struct vnet_report *ret)
{
    /* SAFETY: the caller holds the AccessMap and the ChainBatch that own these addresses; their ABI words are checked. */
    return vnet_receive((const struct vmm_map *)map, (struct virtio_batch *)batch, port, ret);
}
