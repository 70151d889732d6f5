/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * Many bytes in one call: fill, copy, compare, lists of ranges, file descriptors; see core.h. */
#define _GNU_SOURCE
#include "core.h"

#include <unistd.h>

#define IOV_BATCH 64
#define CHUNK 4096

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t vmm_mem_reach(const struct vmm_map *map, uint64_t gpa, uint64_t len, int access)
{
    const struct vmm_region *region = vmm_find(map, gpa), *end = map->regions + map->count;
    uint64_t total = 0;

    while (total < len && region != NULL && region != end && region->base <= gpa && !vmm_refuses(region, access)) {
        uint64_t part = least(len - total, vmm_region_left(region, gpa));
        total += part;
        gpa += part;
        region++;
        if (gpa == 0 || (region != end && region->base != gpa))
            break;
    }
    return total;
}

int vmm_mem_fill(const struct vmm_map *map, uint64_t gpa, uint64_t len, int byte)
{
    const struct vmm_region *region;
    int rc = vmm_check_from(map, gpa, len, VMM_WRITE, &region);

    if (rc != 0)
        return rc;
    while (len != 0) {
        uint64_t part = least(len, vmm_region_left(region, gpa));
        /* SAFETY: vmm_check_from proved that the range runs through this region and the ones after it. */
        memset(region->host + (gpa - region->base), byte, part);
        vmm_region_mark_dirty(region, gpa - region->base, part);
        gpa += part;
        len -= part;
        region++;
    }
    return 0;
}

/* Copy `part` bytes, which lie in one region on each side, at `at` bytes from both starts. */
static void copy_part(const struct vmm_region *to, const struct vmm_region *from, uint64_t dst, uint64_t src,
                      uint64_t part)
{
    uint8_t *target = to->host + (dst - to->base);
    const uint8_t *source = from->host + (src - from->base);
    uint8_t small[8];

    /* SAFETY: the caller checked both ranges whole, and cut the part at the regions' ends. */
    if (part <= 8) {
        vmm_copy_in(small, source, part); /* in single accesses, as read and write do */
        vmm_copy_out(target, small, part);
    } else {
        memmove(target, source, part);
    }
    vmm_region_mark_dirty(to, dst - to->base, part);
}

int vmm_mem_copy(const struct vmm_map *map, uint64_t dst, uint64_t src, uint64_t len)
{
    const struct vmm_region *to, *from;
    int rc = vmm_check_from(map, src, len, VMM_READ, &from);

    if (rc == 0)
        rc = vmm_check_from(map, dst, len, VMM_WRITE, &to);
    if (rc != 0 || len == 0 || src == dst)
        return rc;
    if (dst - src >= len) { /* the target does not begin inside the source: upwards */
        while (len != 0) {
            uint64_t part = least(len, least(vmm_region_left(from, src), vmm_region_left(to, dst)));
            copy_part(to, from, dst, src, part);
            len -= part;
            src += part;
            dst += part;
            from += src - from->base == from->size;
            to += dst - to->base == to->size;
        }
        return 0;
    }
    from = vmm_find(map, src + (len - 1));
    to = vmm_find(map, dst + (len - 1));
    while (len != 0) { /* downwards; src + len and dst + len are one past the last byte that is left, perhaps 2^64 */
        uint64_t part = least(len, least(src + (len - 1) - from->base, dst + (len - 1) - to->base) + 1);
        len -= part;
        copy_part(to, from, dst + len, src + len, part);
        if (len == 0)
            break;
        from -= src + len == from->base;
        to -= dst + len == to->base;
    }
    return 0;
}

static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t len)
{
    uint64_t i = 0;

    if (memcmp(a, b, len) == 0)
        return len;
    while (a[i] == b[i])
        i++;
    return i;
}

int vmm_mem_compare(const struct vmm_map *map, uint64_t gpa, const uint8_t *data, uint64_t other, uint64_t len,
                    uint64_t *ret)
{
    uint8_t mine[CHUNK], theirs[CHUNK];
    uint64_t done = 0;
    int rc = vmm_check(map, gpa, len, VMM_READ);

    if (rc == 0 && data == NULL)
        rc = vmm_check(map, other, len, VMM_READ);
    *ret = 0;
    /* Compared as copies: what changes meanwhile compares as it was at one moment, and no library sees it change. */
    while (rc == 0 && done < len) {
        uint64_t part = least(len - done, CHUNK), same;

        rc = vmm_read(map, gpa + done, mine, part);
        if (rc == 0 && data == NULL)
            rc = vmm_read(map, other + done, theirs, part);
        if (rc != 0)
            break;
        same = first_difference(mine, data == NULL ? theirs : data + done, part);
        done += same;
        if (same != part)
            break;
    }
    *ret = done;
    return rc;
}

int vmm_mem_find(const struct vmm_map *map, uint64_t gpa, uint64_t len, const uint8_t *needle, uint64_t size,
                 uint8_t *scratch, uint64_t room, uint64_t *ret)
{
    uint64_t kept = 0, at = 0;
    int rc = vmm_check(map, gpa, len, VMM_READ);

    *ret = UINT64_MAX;
    if (rc != 0 || size == 0 || room < 2 * size)
        return rc != 0 ? rc : -EINVAL;
    /* The last size - 1 bytes of each piece stay in front of the next, so that a match over the seam is seen. */
    while (at < len) {
        uint64_t part = least(len - at, room - kept);
        const uint8_t *found;

        rc = vmm_read(map, gpa + at, scratch + kept, part);
        if (rc != 0)
            return rc;
        found = memmem(scratch, kept + part, needle, size);
        if (found != NULL) {
            *ret = at - kept + (uint64_t)(found - scratch);
            return 0;
        }
        at += part;
        part += kept;
        kept = least(part, size - 1);
        memmove(scratch, scratch + part - kept, kept);
    }
    return 0;
}

int vmm_mem_check_ranges(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, int access,
                         uint64_t *ret)
{
    uint64_t i;

    for (i = 0; i < count; i++) {
        int rc = vmm_check(map, ranges[i].gpa, ranges[i].len, access);

        *ret = i;
        if (rc != 0)
            return rc;
    }
    *ret = count;
    return 0;
}

int vmm_mem_gather(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, uint8_t *dst,
                   uint64_t *ret)
{
    uint64_t i;
    int rc = vmm_mem_check_ranges(map, ranges, count, VMM_READ, ret);

    for (i = 0; rc == 0 && i < count; i++) {
        rc = vmm_read(map, ranges[i].gpa, dst, ranges[i].len);
        dst += ranges[i].len;
    }
    return rc;
}

int vmm_mem_scatter(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, const uint8_t *src,
                    uint64_t *ret)
{
    uint64_t i;
    int rc = vmm_mem_check_ranges(map, ranges, count, VMM_WRITE, ret);

    for (i = 0; rc == 0 && i < count; i++) {
        rc = vmm_write(map, ranges[i].gpa, src, ranges[i].len);
        src += ranges[i].len;
    }
    return rc;
}

static ssize_t transfer_once(int fd, int64_t offset, const struct iovec *iov, int n, int into_memory)
{
    if (into_memory)
        return offset < 0 ? readv(fd, iov, n) : preadv(fd, iov, n, offset);
    return offset < 0 ? writev(fd, iov, n) : pwritev(fd, iov, n, offset);
}

/* The fragments of the ranges from `skip` bytes on, at most IOV_BATCH of them. 0 or -errno. */
static int fragments(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, uint64_t skip,
                     int access, struct iovec *iov, int *n)
{
    uint64_t i;

    *n = 0;
    for (i = 0; i < count && *n < IOV_BATCH; i++) {
        size_t used;
        int rc;

        if (skip >= ranges[i].len) {
            skip -= ranges[i].len;
            continue;
        }
        rc = vmm_iov(map, ranges[i].gpa + skip, ranges[i].len - skip, access, iov + *n, (size_t)(IOV_BATCH - *n), &used);
        if (rc == -ENOSPC) /* the entries are filled all the same */
            used = (size_t)(IOV_BATCH - *n);
        else if (rc != 0)
            return rc;
        *n += (int)used;
        skip = 0;
    }
    return 0;
}

/* Mark `len` bytes of the ranges from `skip` on. */
static void mark_ranges(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, uint64_t skip,
                        uint64_t len)
{
    uint64_t i;

    for (i = 0; i < count && len != 0; i++) {
        uint64_t part;

        if (skip >= ranges[i].len) {
            skip -= ranges[i].len;
            continue;
        }
        part = least(len, ranges[i].len - skip);
        vmm_mark_dirty(map, ranges[i].gpa + skip, part);
        len -= part;
        skip = 0;
    }
}

static uint64_t covered(const struct iovec *iov, int n)
{
    uint64_t sum = 0;

    while (n-- != 0)
        sum += iov[n].iov_len;
    return sum;
}

int vmm_mem_transfer(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, uint64_t skip, int fd,
                     int64_t offset, int into_memory, int once, uint64_t *ret)
{
    struct iovec iov[IOV_BATCH];
    int n, rc;

    *ret = 0;
    for (;;) {
        ssize_t moved;

        rc = fragments(map, ranges, count, skip, into_memory ? VMM_WRITE : VMM_READ, iov, &n);
        if (rc != 0 || n == 0)
            return rc;
        moved = transfer_once(fd, offset, iov, n, into_memory);
        if (moved < 0) {
            rc = -errno;
            /* A read that failed half-way may have written any of it. */
            if (into_memory && rc != -EINTR && rc != -EAGAIN)
                mark_ranges(map, ranges, count, skip, covered(iov, n));
            return rc;
        }
        if (into_memory)
            mark_ranges(map, ranges, count, skip, (uint64_t)moved);
        skip += (uint64_t)moved;
        *ret += (uint64_t)moved;
        if (moved == 0 || once)
            return 0;
        if (offset >= 0)
            offset += moved;
    }
}
