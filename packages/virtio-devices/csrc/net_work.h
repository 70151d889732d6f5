/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * net_work.h - what both directions of virtio-net have in common; see net.h.
 */
#ifndef VIRTIO_DEVICES_NET_WORK_H
#define VIRTIO_DEVICES_NET_WORK_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "net.h"
#include "stream.h"

/* struct virtio_net_hdr_v1, flags and gso_type */
enum { F_NEEDS_CSUM = 1, F_DATA_VALID = 2 };
enum { GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4, GSO_ECN = 0x80 };

#define VNET_IOVS 96u /* a system call: 64 KiB are 43 receive buffers of a Linux driver */

/* One call. */
struct work {
    const struct vmm_map *map;
    struct virtio_batch *batch;
    struct vnet_port *port;
    struct vnet_report *report;
    uint32_t usable;   /* the chains before the first broken one */
    uint64_t room;     /* receive: writable bytes of the usable chains that are left */
    uint32_t in_place; /* receive: so many bytes of the frame's body lie in its buffers already, the rest in scratch */
};

static inline struct stream chain_stream(const struct vmm_map *map, const struct virtio_batch *batch, uint32_t i,
                                  uint32_t writable)
{
    const struct virtio_seg *first = batch->segs + batch->chains[i].first_seg;

    return (struct stream){.map = map, .seg = first, .end = first + batch->chains[i].nsegs, .writable = writable};
}

/* Does a header ask for no more than was negotiated? */
static inline int header_ok(const uint8_t *header, uint32_t flags)
{
    uint8_t type = header[1];

    if ((header[0] & F_NEEDS_CSUM) && !(flags & VNET_CSUM))
        return 0;
    if (type == GSO_NONE)
        return 1;
    if ((type & GSO_ECN) && !(flags & VNET_ECN))
        return 0;
    type &= (uint8_t)~GSO_ECN;
    return type == GSO_TCPV4 ? (flags & VNET_TSO4) != 0 : type == GSO_TCPV6 && (flags & VNET_TSO6) != 0;
}

static inline void count(struct work *w, const uint8_t *header, uint32_t body)
{
    w->report->packets++;
    w->report->bytes += body;
    w->report->csum += (header[0] & F_NEEDS_CSUM) != 0;
    w->report->gso += header[1] != GSO_NONE;
}

static inline int capture_full(const struct vnet_port *port)
{
    return port->capture != NULL && port->capture_size - port->capture_used < VNET_RECORD + port->snaplen;
}

/* One record of a pcap file; the caller has asked capture_full. */
static inline void capture(struct vnet_port *port, const uint8_t *body, uint32_t len)
{
    uint32_t kept = len < port->snaplen ? len : port->snaplen;
    struct timespec now = {0};
    uint32_t record[4];
    uint8_t *to = port->capture + port->capture_used;

    clock_gettime(CLOCK_REALTIME, &now);
    record[0] = (uint32_t)now.tv_sec;
    record[1] = (uint32_t)now.tv_nsec;
    record[2] = kept;
    record[3] = len;
    memcpy(to, record, sizeof(record));
    memcpy(to + sizeof(record), body, kept);
    port->capture_used += VNET_RECORD + kept;
}

/* Find the first chain that cannot be used: popped with an error, or too short for a header. */
static inline void find_usable(struct work *w, int receive)
{
    uint32_t i;

    for (i = 0; i < w->batch->nchains; i++) {
        struct virtio_chain *chain = &w->batch->chains[i];
        uint64_t len = receive ? chain->writable : chain->readable;

        if (chain->error == 0 && len < VNET_HEADER)
            chain->error = -ENODATA;
        if (chain->error != 0)
            break;
        w->room += receive ? len : 0;
    }
    w->usable = i;
    w->report->broken = i < w->batch->nchains;
}

static inline void found_broken(struct work *w, uint32_t chain)
{
    w->batch->chains[chain].error = -EFAULT;
    w->usable = chain;
    w->report->broken = 1;
}

static inline int check_arguments(const struct vmm_map *map, const struct virtio_batch *batch, const struct vnet_port *port)
{
    if (vmm_map_check(map) != 0 || virtio_batch_check(batch) != 0 || port->abi != VNET_PORT_ABI)
        return -EPROTO;
    if (port->scratch == NULL || port->pending > VNET_HEADER + VNET_BODY_MAX)
        return -EINVAL;
    if (port->capture != NULL && (port->snaplen > VNET_BODY_MAX || port->capture_size < VNET_RECORD + port->snaplen))
        return -EINVAL;
    return stream_bounds(batch);
}

#endif
