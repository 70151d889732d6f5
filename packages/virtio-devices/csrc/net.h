/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * net.h - the virtio-net data path: frames between a descriptor that carries them and a batch of chains.
 *
 * A descriptor gives and takes one frame a call, struct virtio_net_hdr_v1 (12 bytes, VIRTIO 1.2 section 5.1.6) before
 * it: a tap, or a socket that keeps message boundaries. No policy and no Python. The Python data path
 * (virtio_devices/_net_python.py) is the readable specification of the same work; a property test holds the two equal.
 */
#ifndef VIRTIO_DEVICES_NET_H
#define VIRTIO_DEVICES_NET_H

#include <stdint.h>

#include "virtio_batch.h"
#include "vmm_access.h"

#define VNET_ABI 1u
#define VNET_PORT_ABI (((uint64_t)VNET_ABI << 32) | sizeof(struct vnet_port))
#define VNET_HEADER 12u
#define VNET_BODY_MIN 14u    /* an Ethernet header */
#define VNET_BODY_MAX 65554u /* a segment of 64 KiB with Ethernet header and VLAN tag */
#define VNET_SCRATCH (VNET_HEADER + VNET_BODY_MAX + 1u) /* the last byte shows that a frame was larger */
#define VNET_RECORD 16u                                  /* bytes of a capture record before the frame */

/* vnet_port.flags: what was negotiated. CSUM: a header may ask for a checksum; TSO: for segmentation. */
#define VNET_CSUM 1u
#define VNET_TSO4 2u
#define VNET_TSO6 4u
#define VNET_ECN 8u
#define VNET_MRG 16u /* a frame may be spread over several receive buffers */

/* vnet_report.stop: why the call ended. */
#define VNET_MORE 0u    /* at a limit of its own: call again */
#define VNET_BLOCKED 1u /* the descriptor gives or takes nothing now */
#define VNET_STARVED 2u /* a frame waits, or may, for receive buffers */
#define VNET_CLOSED 3u  /* the descriptor will never give a frame again; `error` says why, 0: its other end closed */

/* One direction of one device; kept between calls. */
struct vnet_port {
    uint64_t abi;          /* VNET_PORT_ABI */
    uint8_t *scratch;      /* VNET_SCRATCH bytes */
    uint8_t *capture;      /* pcap records (little-endian, nanoseconds) are put here, or NULL */
    uint32_t capture_size; /* at least VNET_RECORD + snaplen */
    uint32_t capture_used; /* out, from 0 on in each call */
    uint32_t snaplen;      /* bytes of a frame that are captured at most */
    int32_t fd;            /* non-blocking */
    uint32_t flags;        /* VNET_* */
    uint32_t pending;      /* receive: bytes of the frame in scratch that waits for buffers, 0: none */
    uint32_t large;        /* receive: so many frames are yet expected to be large */
    uint32_t reserved;
};

struct vnet_report {
    uint64_t packets;   /* moved */
    uint64_t bytes;     /* of them, without the 12 bytes each */
    uint32_t csum;      /* of them: with a checksum left to the other side */
    uint32_t gso;       /* of them: to be segmented by the other side */
    uint32_t merged;    /* of them: in more than one receive buffer */
    uint32_t invalid;   /* dropped: impossible length, or a header that asks for what was not negotiated */
    uint32_t oversized; /* dropped: receive buffers too small */
    uint32_t refused;   /* dropped: the host's answer was an error */
    int32_t error;      /* errno (positive) of the first of those, or with VNET_CLOSED of the read */
    uint32_t used;      /* so many chains, from the first on, are done; the others are to be given back */
    uint32_t broken;    /* 1: a chain has an error, popped that way or found here; the driver has to reset */
    uint32_t stop;      /* VNET_MORE … VNET_CLOSED */
};

_Static_assert(sizeof(struct vnet_port) == 56, "vnet_port is ABI");
_Static_assert(sizeof(struct vnet_report) == 56, "vnet_report is ABI");

/* Receive: read frames into the batch's writable buffers until it is used up, nothing comes, or 64 frames were read.
 * Transmit: write the batch's readable buffers as frames until it is done or the descriptor takes nothing.
 * Both set `written` of the chains that are done. A chain without room for a header (error -ENODATA), or outside
 * guest memory (-EFAULT), ends the work on the batch before it.
 * 0, or -EPROTO for a structure of another version, or -EINVAL for impossible limits (both: nothing was done). */
int vnet_receive(const struct vmm_map *map, struct virtio_batch *batch, struct vnet_port *port, struct vnet_report *ret);
int vnet_transmit(const struct vmm_map *map, struct virtio_batch *batch, struct vnet_port *port,
                  struct vnet_report *ret);

/* The same for callers that hold addresses (vmm_memory.AccessMap.address, virtio_queue.ChainBatch.address). */
int vnet_receive_at(uintptr_t map, uintptr_t batch, struct vnet_port *port, struct vnet_report *ret);
int vnet_transmit_at(uintptr_t map, uintptr_t batch, struct vnet_port *port, struct vnet_report *ret);

#endif
