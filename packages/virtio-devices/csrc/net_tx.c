/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * Frames of the guest, from its buffers to the descriptor.
 * See net.h. Rules: VIRTIO 1.2 section 5.1.6.2. */
#define _GNU_SOURCE
#include <unistd.h>

#include "net_work.h"

/* Header and body of one frame as host fragments. The count, 0 when they are too many, or -EFAULT. */
static int tx_gather(struct stream s, const struct vmm_map *map, uint32_t body, struct iovec *iov)
{
    size_t used = 1, n = 0;

    while (body != 0) {
        uint64_t addr = 0;
        uint32_t part = stream_next(&s, body, &addr);
        int rc = part == 0 ? -EFAULT : vmm_iov(map, addr, part, 0, &iov[used], VNET_IOVS - used, &n);

        if (rc != 0)
            return rc == -ENOSPC ? 0 : -EFAULT;
        used += n;
        body -= part;
    }
    return (int)used;
}

static int tx_write(struct work *w, struct iovec *iov, int n, uint32_t body)
{
    ssize_t size;

    do
        /* SAFETY: entries came from vmm_iov on a map that the caller keeps alive, or lie in scratch. */
        size = writev(w->port->fd, iov, n);
    while (size < 0 && errno == EINTR);
    if (size == (ssize_t)(VNET_HEADER + body))
        return 0;
    return size < 0 ? -errno : -EMSGSIZE;
}

/* 0: the chain is done; -EAGAIN: not yet; -EFAULT: it is broken. */
static int tx_frame(struct work *w, const struct virtio_chain *chain, struct stream s)
{
    struct vnet_port *port = w->port;
    uint8_t header[VNET_HEADER];
    struct iovec iov[VNET_IOVS];
    uint32_t body;
    int n, rc;

    if (chain->readable < VNET_HEADER + VNET_BODY_MIN || chain->readable > VNET_HEADER + VNET_BODY_MAX) {
        w->report->invalid++;
        return 0;
    }
    if (stream_read(&s, header, VNET_HEADER) != 0)
        return -EFAULT;
    header[0] &= F_NEEDS_CSUM; /* the only flag that a driver may set (5.1.6.2.1) */
    memset(header + 10, 0, 2); /* num_buffers means nothing here */
    if (!header_ok(header, port->flags)) {
        w->report->invalid++;
        return 0;
    }
    body = (uint32_t)chain->readable - VNET_HEADER;
    n = port->capture != NULL ? 0 : tx_gather(s, w->map, body, iov);
    if (n < 0)
        return n;
    if (n == 0) {
        /* In one piece: too many fragments, or what is captured must be what was sent. */
        if (stream_read(&s, port->scratch, body) != 0)
            return -EFAULT;
        iov[1] = (struct iovec){port->scratch, body};
        n = 2;
    }
    iov[0] = (struct iovec){header, VNET_HEADER};
    rc = tx_write(w, iov, n, body);
    if (rc == -EAGAIN)
        return rc;
    if (rc == 0) {
        count(w, header, body);
        if (port->capture != NULL)
            capture(port, port->scratch, body);
    } else if (w->report->refused++ == 0) {
        w->report->error = -rc;
    }
    return 0;
}

int vnet_transmit(const struct vmm_map *map, struct virtio_batch *batch, struct vnet_port *port,
                  struct vnet_report *ret)
{
    struct work w = {.map = map, .batch = batch, .port = port, .report = ret};
    int rc = check_arguments(map, batch, port);

    memset(ret, 0, sizeof(*ret));
    if (rc != 0)
        return rc;
    port->capture_used = 0;
    find_usable(&w, 0);
    while (ret->used < w.usable && !capture_full(port)) {
        struct virtio_chain *chain = &batch->chains[ret->used];

        rc = tx_frame(&w, chain, chain_stream(map, batch, ret->used, 0));
        if (rc == -EAGAIN) {
            ret->stop = VNET_BLOCKED;
            break;
        }
        if (rc != 0) {
            found_broken(&w, ret->used);
            break;
        }
        chain->written = 0;
        ret->used++;
    }
    return 0;
}

int vnet_transmit_at(uintptr_t map, uintptr_t batch, struct vnet_port *port, struct vnet_report *ret)
{
    /* SAFETY: the caller holds the AccessMap and the ChainBatch that own these addresses; their ABI words are checked. */
    return vnet_transmit((const struct vmm_map *)map, (struct virtio_batch *)batch, port, ret);
}
