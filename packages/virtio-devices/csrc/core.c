/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#define _GNU_SOURCE
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "stream.h"

/* VIRTIO 1.2 section 5.2.6 */
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
enum { F_UNMAP = 1 };

#define SECTOR 512u
#define HEADER 16u
#define RANGE 16u
#define IOVS 128u /* per system call; far below IOV_MAX and small enough for the stack */
#define MAX_DATA (UINT32_MAX - SECTOR) /* used.len is 32 bits wide and counts the status byte too */

_Static_assert(IOVS <= IOV_MAX, "one window fits one system call");

struct request {
    const struct vmm_map *map;
    const struct vblk_disk *disk;
    struct vblk_report *report;
    struct virtio_chain *chain;
    struct stream in, out; /* in: to the guest */
    uint64_t data_in;  /* writable bytes without the status byte */
    uint64_t data_out; /* readable bytes without the header */
    uint64_t sector;
    uint32_t type;
    uint32_t delivered; /* data bytes written into guest memory */
};

static const uint8_t zeroes[16384];

/* Zero what is left of the stream after its first skip bytes. */
static int stream_zero(struct stream s, uint64_t skip, uint64_t len)
{
    uint64_t addr = 0;
    uint32_t part;

    while (skip != 0 && (part = stream_next(&s, skip, &addr)) != 0)
        skip -= part;
    while (len != 0 && (part = stream_next(&s, len < sizeof(zeroes) ? len : sizeof(zeroes), &addr)) != 0) {
        int rc = vmm_write(s.map, addr, zeroes, part);

        if (rc != 0)
            return rc;
        len -= part;
    }
    return 0;
}

/* Fill one window of host fragments from the stream (which was checked): entries, and bytes through *bytes. */
static size_t stream_window(struct stream *s, uint64_t limit, struct iovec *iov, uint64_t *bytes)
{
    size_t used = 0;
    uint64_t addr = 0;

    *bytes = 0;
    while (used < IOVS && *bytes < limit) {
        struct stream before = *s;
        uint32_t part = stream_next(s, limit - *bytes, &addr);
        size_t n = 0;
        int rc;

        if (part == 0)
            break;
        rc = vmm_iov(s->map, addr, part, s->writable != 0, &iov[used], IOVS - used, &n);
        if (rc == -ENOSPC && used != 0) {
            *s = before; /* begins the next window */
            break;
        }
        if (rc == -ENOSPC) {
            /* One buffer across more regions than a window holds: take its first region alone. */
            uint64_t left = vmm_region_left(vmm_find(s->map, addr), addr);

            s->offset -= part - (uint32_t)left;
            part = (uint32_t)left;
            rc = vmm_iov(s->map, addr, part, s->writable != 0, &iov[used], IOVS - used, &n);
        }
        if (rc != 0)
            break; /* not reached: stream_check saw the same immutable map */
        used += n;
        *bytes += part;
    }
    return used;
}

/* Move one window completely, over EINTR and short transfers. *done counts what was moved, also on failure. */
static int window_io(int fd, int to_disk, struct iovec *iov, size_t n, uint64_t offset, uint64_t *done)
{
    *done = 0;
    while (n != 0) {
        /* SAFETY: every entry came from vmm_iov on a map that the caller keeps alive. */
        ssize_t rc = to_disk ? pwritev(fd, iov, (int)n, (off_t)(offset + *done))
                             : preadv(fd, iov, (int)n, (off_t)(offset + *done));
        size_t moved;

        if (rc < 0 && errno == EINTR)
            continue;
        if (rc < 0)
            return -errno;
        if (rc == 0)
            return -EIO; /* the image ends before its capacity: it was truncated under us */
        *done += (uint64_t)rc;
        for (moved = (size_t)rc; n != 0 && moved >= iov->iov_len; iov++, n--)
            moved -= iov->iov_len;
        if (n != 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + moved;
            iov->iov_len -= moved;
        }
    }
    return 0;
}

static int host_error(struct request *req, int rc)
{
    struct vblk_report *report = req->report;

    if (report->errors++ == 0) {
        report->error = -rc;
        report->error_type = req->type;
        report->error_offset = req->sector * SECTOR;
    }
    return S_IOERR;
}

static int sync_disk(int fd)
{
    int rc;

    do
        rc = fdatasync(fd);
    while (rc != 0 && errno == EINTR);
    return rc != 0 ? -errno : 0;
}

static int changed(struct request *req, int rc)
{
    if (rc == 0 && (req->disk->flags & VBLK_WRITE_THROUGH))
        rc = sync_disk(req->disk->fd);
    return rc != 0 ? host_error(req, rc) : S_OK;
}

/* Sectors [sector, sector + count) lie on the disk; written so that nothing can wrap. */
static int on_disk(const struct vblk_disk *disk, uint64_t sector, uint64_t count)
{
    return sector <= disk->capacity && count <= disk->capacity - sector;
}

static int transfer(struct request *req, int to_disk)
{
    uint64_t left = to_disk ? req->data_out : req->data_in;
    uint64_t offset = req->sector * SECTOR; /* wraps only where on_disk refuses below */
    struct stream *s = to_disk ? &req->out : &req->in;
    struct iovec iov[IOVS];
    int rc = 0;

    if (left % SECTOR != 0 || left > MAX_DATA || !on_disk(req->disk, req->sector, left / SECTOR))
        return S_IOERR;
    if (to_disk && stream_check(*s, left) != 0) /* the other direction was checked by process_chain */
        return S_IOERR;
    while (rc == 0 && left != 0) {
        struct stream before = *s;
        uint64_t bytes, done = 0;
        size_t n = stream_window(s, left, iov, &bytes);

        rc = n == 0 ? -EFAULT : window_io(req->disk->fd, to_disk, iov, n, offset, &done);
        offset += done;
        left -= done;
        if (to_disk) {
            req->report->written_bytes += done;
        } else {
            /* The kernel may have filled more than it admits to when it failed half way. */
            stream_mark_dirty(before, bytes);
            req->delivered += (uint32_t)done;
            req->report->read_bytes += done;
        }
    }
    if (rc != 0)
        return host_error(req, rc);
    return to_disk ? changed(req, 0) : S_OK;
}

static int get_id(struct request *req)
{
    if (!req->disk->has_id)
        return S_UNSUPP;
    if (req->data_in < VBLK_ID_BYTES)
        return S_IOERR;
    if (stream_write(&req->in, req->disk->id, VBLK_ID_BYTES) != 0)
        return S_IOERR;
    req->delivered = VBLK_ID_BYTES;
    return S_OK;
}

/* May the host lack this operation altogether (then there is another way), or did it fail? */
static int not_supported(int rc)
{
    return rc == -EOPNOTSUPP || rc == -ENOSYS || rc == -EINVAL || rc == -ENODEV;
}

static int allocate(int fd, int mode, uint64_t offset, uint64_t len)
{
    int rc;

    do
        rc = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len);
    while (rc != 0 && errno == EINTR);
    return rc != 0 ? -errno : 0;
}

static int write_zeroes_slowly(int fd, uint64_t offset, uint64_t len)
{
    struct iovec iov[16];
    int rc = 0;

    while (rc == 0 && len != 0) {
        uint64_t bytes = 0, done;
        size_t n;

        for (n = 0; n < 16 && bytes < len; n++) {
            iov[n].iov_base = (void *)(uintptr_t)zeroes; /* pwritev only reads it */
            iov[n].iov_len = len - bytes < sizeof(zeroes) ? len - bytes : sizeof(zeroes);
            bytes += iov[n].iov_len;
        }
        rc = window_io(fd, 1, iov, n, offset, &done);
        offset += done;
        len -= done;
    }
    return rc;
}

static int discard_range(int fd, uint64_t offset, uint64_t len)
{
    int rc = allocate(fd, FALLOC_FL_PUNCH_HOLE, offset, len);

    return not_supported(rc) ? 0 : rc; /* a discard is only a hint */
}

static int zero_range(int fd, uint64_t offset, uint64_t len, int unmap)
{
    int rc = allocate(fd, unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, offset, len);

    return not_supported(rc) ? write_zeroes_slowly(fd, offset, len) : rc;
}

struct range {
    uint64_t sector;
    uint32_t sectors;
    uint32_t flags;
};

_Static_assert(sizeof(struct range) == RANGE, "struct virtio_blk_discard_write_zeroes");

/* Every segment is checked before the first one is carried out: all of the request or nothing. */
static int check_ranges(const struct request *req, const struct range *ranges, uint64_t n, uint32_t max_sectors)
{
    uint64_t i;

    for (i = 0; i < n; i++) {
        if ((ranges[i].flags & ~(uint32_t)F_UNMAP) || (ranges[i].flags && req->type == T_DISCARD))
            return S_UNSUPP;
        if (ranges[i].sectors > max_sectors || !on_disk(req->disk, ranges[i].sector, ranges[i].sectors))
            return S_IOERR;
    }
    return S_OK;
}

static int discard_or_zero(struct request *req)
{
    const struct vblk_disk *disk = req->disk;
    int discard = req->type == T_DISCARD;
    struct range ranges[VBLK_MAX_RANGES];
    uint64_t i, n = req->data_out / RANGE;
    int status, rc = 0;

    if (req->data_out % RANGE != 0 || n == 0 || n > (discard ? disk->max_discard_ranges : disk->max_zeroes_ranges))
        return S_IOERR;
    if (stream_read(&req->out, ranges, req->data_out) != 0)
        return S_IOERR;
    status = check_ranges(req, ranges, n, discard ? disk->max_discard_sectors : disk->max_zeroes_sectors);
    for (i = 0; status == S_OK && rc == 0 && i < n; i++) {
        uint64_t offset = ranges[i].sector * SECTOR, len = (uint64_t)ranges[i].sectors * SECTOR;

        if (len != 0)
            rc = discard ? discard_range(disk->fd, offset, len)
                         : zero_range(disk->fd, offset, len, ranges[i].flags & F_UNMAP);
    }
    return status != S_OK ? status : changed(req, rc);
}

static int flush(struct request *req)
{
    int rc = sync_disk(req->disk->fd);

    return rc != 0 ? host_error(req, rc) : S_OK;
}

static int execute(struct request *req)
{
    uint32_t flags = req->disk->flags;

    /* Which direction may carry data: VIRTIO 1.2 section 5.2.6, struct virtio_blk_req. */
    if (req->data_out != 0 && req->type != T_OUT && req->type != T_DISCARD && req->type != T_WRITE_ZEROES)
        return S_IOERR;
    if (req->data_in != 0 && req->type != T_IN && req->type != T_GET_ID)
        return S_IOERR;
    if ((flags & VBLK_READ_ONLY) && req->type != T_IN && req->type != T_FLUSH && req->type != T_GET_ID)
        return S_IOERR;
    switch (req->type) {
    case T_IN:
        return transfer(req, 0);
    case T_OUT:
        return transfer(req, 1);
    case T_FLUSH:
        return flags & VBLK_FLUSH ? flush(req) : S_UNSUPP;
    case T_GET_ID:
        return get_id(req);
    case T_DISCARD:
        return flags & VBLK_DISCARD ? discard_or_zero(req) : S_UNSUPP;
    default:
        return flags & VBLK_WRITE_ZEROES ? discard_or_zero(req) : S_UNSUPP;
    }
}

static int known(uint32_t type)
{
    return type == T_IN || type == T_OUT || type == T_FLUSH || type == T_GET_ID || type == T_DISCARD ||
           type == T_WRITE_ZEROES;
}

/* The header is copied once; everything below works on the copy. */
static int parse_and_execute(struct request *req)
{
    uint8_t header[HEADER];

    if (req->chain->readable < HEADER || stream_read(&req->out, header, HEADER) != 0)
        return S_IOERR;
    memcpy(&req->type, header, 4);
    memcpy(&req->sector, header + 8, 8);
    req->data_out = req->chain->readable - HEADER;
    req->data_in = req->chain->writable - 1;
    return known(req->type) ? execute(req) : S_UNSUPP;
}

/* Address of the chain's last writable byte, where the status goes. */
static int find_status(const struct virtio_seg *first, uint32_t n, uint64_t *ret)
{
    while (n-- != 0) {
        if (first[n].writable && first[n].len != 0) {
            *ret = first[n].addr + (first[n].len - 1);
            return 0;
        }
    }
    return -ENODATA;
}

static int process_chain(const struct vmm_map *map, const struct virtio_batch *batch, struct virtio_chain *chain,
                         const struct vblk_disk *disk, struct vblk_report *report)
{
    const struct virtio_seg *first = batch->segs + chain->first_seg;
    struct stream stream = {.map = map, .seg = first, .end = first + chain->nsegs, .writable = 0, .offset = 0};
    struct request req = {.map = map, .disk = disk, .report = report, .chain = chain, .out = stream, .in = stream};
    uint64_t status_addr = 0;
    struct stream whole;
    uint8_t status;

    req.in.writable = 1;
    whole = req.in;
    /* Before anything is done: can all that will be written be written? */
    if (find_status(first, chain->nsegs, &status_addr) != 0 || stream_check(whole, chain->writable) != 0)
        return -EFAULT;
    status = (uint8_t)parse_and_execute(&req);
    /* used.len promises that everything up to it was written, and has to reach the status byte, which comes last:
     * what a failed request did not deliver is zeroed (VIRTIO 1.2 section 2.7.8.2). */
    if (stream_zero(whole, req.delivered, chain->writable - 1 - req.delivered) != 0)
        return -EFAULT;
    if (vmm_write(map, status_addr, &status, 1) != 0)
        return -EFAULT;
    chain->written = chain->writable > UINT32_MAX ? UINT32_MAX : (uint32_t)chain->writable;
    return 0;
}

static int check_arguments(const struct vmm_map *map, const struct virtio_batch *batch, const struct vblk_disk *disk)
{
    if (vmm_map_check(map) != 0 || virtio_batch_check(batch) != 0 || disk->abi != VBLK_DISK_ABI)
        return -EPROTO;
    if (disk->max_discard_ranges > VBLK_MAX_RANGES || disk->max_zeroes_ranges > VBLK_MAX_RANGES ||
        disk->capacity > (uint64_t)INT64_MAX / SECTOR)
        return -EINVAL;
    return stream_bounds(batch);
}

int vblk_process(const struct vmm_map *map, struct virtio_batch *batch, const struct vblk_disk *disk,
                 struct vblk_report *ret)
{
    int rc = check_arguments(map, batch, disk);
    uint32_t i;

    memset(ret, 0, sizeof(*ret));
    if (rc != 0)
        return rc;
    for (i = 0; i < batch->nchains; i++) {
        struct virtio_chain *chain = &batch->chains[i];

        chain->written = 0;
        if (chain->error == 0 && process_chain(map, batch, chain, disk, ret) != 0)
            chain->error = -ENODATA;
        ret->broken += chain->error != 0;
    }
    return 0;
}

int vblk_process_at(uintptr_t map, uintptr_t batch, const struct vblk_disk *disk, struct vblk_report *ret)
{
    /* SAFETY: the caller holds the AccessMap and the ChainBatch that own these addresses; their ABI words are checked. */
    return vblk_process((const struct vmm_map *)map, (struct virtio_batch *)batch, disk, ret);
}

int vblk_selftest_overrun(void)
{
#ifdef VMM_SANITIZE
    volatile size_t size = 8;
    volatile uint8_t *heap = malloc(size);

    if (heap == NULL)
        return -ENOMEM;
    heap[size] = 1;
    free((void *)heap);
    return 0;
#else
    return -ENOSYS;
#endif
}
