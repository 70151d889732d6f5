/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#define _GNU_SOURCE
#include "core.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Not in the headers of older distributions; the numbers are kernel ABI. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define HUGETLBFS_ID 0x958458f6u
#define IOV_BATCH 64

static uint64_t page_size(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

int vmm_mem_map(uint64_t size, uint64_t base, uint64_t align, int fd, uint64_t offset, uint32_t flags,
                struct vmm_mapping *ret)
{
    const uint64_t page = page_size();
    const int prot = flags & VMM_MEM_READONLY ? PROT_READ : PROT_READ | PROT_WRITE;
    const int kind = (flags & VMM_MEM_SHARED ? MAP_SHARED : MAP_PRIVATE) | (fd < 0 ? MAP_ANONYMOUS : 0) |
                     (flags & VMM_MEM_RESERVE ? 0 : MAP_NORESERVE);
    uint64_t reserved, room;
    uint8_t *reserve, *host;
    int rc;

    if (size == 0 || (size & (page - 1)) || align < page || (align & (align - 1)))
        return -EINVAL;
    if (size > INT64_MAX - align - 2 * page)
        return -ENOMEM;
    room = size + 2 * page + align;
    reserve = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserve == MAP_FAILED)
        return -errno;

    /* SAFETY: the step is below align, so host + size + page stays inside the room of size + 2 * page + align. */
    host = reserve + page;
    host += (base - (uint64_t)(uintptr_t)host) & (align - 1);
    reserved = (uint64_t)(host - reserve) + size + page;
    if (reserved < room)
        munmap(reserve + reserved, room - reserved);

    /* SAFETY: MAP_FIXED replaces only pages of our own reservation. */
    if (mmap(host, size, prot, kind | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED ||
        madvise(host, size, MADV_DONTFORK) != 0) {
        rc = -errno;
        munmap(reserve, reserved);
        return rc;
    }
    /* A wish, not a need: large pages halve what a guest's page faults cost, and a host without them says EINVAL. */
    (void)madvise(host, size, MADV_HUGEPAGE);
    ret->host = host;
    ret->size = size;
    ret->reserve = reserve;
    ret->reserved = reserved;
    return 0;
}

int vmm_mem_unmap(uint8_t *reserve, uint64_t reserved)
{
    return munmap(reserve, reserved) == 0 ? 0 : -errno;
}

int vmm_mem_backing_page(int fd, uint64_t *ret)
{
    struct statfs about;

    if (fstatfs(fd, &about) != 0)
        return -errno;
    *ret = (uint32_t)about.f_type == HUGETLBFS_ID ? (uint64_t)about.f_bsize : page_size();
    return 0;
}

int vmm_mem_prefault(uint8_t *host, uint64_t size, int write)
{
    const uint64_t page = page_size();
    uint64_t at;

    if (madvise(host, size, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0)
        return 0;
    if (errno != EINVAL)
        return -errno;
    /* Linux before 5.14. Adding 0 dirties the page without changing what a running guest may just have written.
     * SAFETY: host..host+size is one mapping, writable when write is set. */
    for (at = 0; at < size; at += page) {
        if (write)
            __atomic_fetch_add(host + at, 0, __ATOMIC_RELAXED);
        else
            (void)__atomic_load_n(host + at, __ATOMIC_RELAXED);
    }
    return 0;
}

int vmm_mem_discard(uint8_t *host, uint64_t size, int fd, uint64_t offset, int shared)
{
    /* MADV_DONTNEED on a shared mapping only unmaps: the page cache would keep the bytes. */
    if (shared && fd >= 0)
        return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size) == 0 ? 0 : -errno;
    return madvise(host, size, shared ? MADV_REMOVE : MADV_DONTNEED) == 0 ? 0 : -errno;
}

static int load(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order, uint64_t *ret)
{
    uint8_t byte = 0;
    uint16_t half = 0;
    uint32_t word = 0;
    int rc;

    switch (size) {
    case 1:
        rc = vmm_load8(map, gpa, order, &byte);
        *ret = byte;
        return rc;
    case 2:
        rc = vmm_load16(map, gpa, order, &half);
        *ret = half;
        return rc;
    case 4:
        rc = vmm_load32(map, gpa, order, &word);
        *ret = word;
        return rc;
    case 8:
        return vmm_load64(map, gpa, order, ret);
    default:
        return -EINVAL;
    }
}

uint64_t vmm_mem_load(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order)
{
    uint64_t value = 0;

    return load(map, gpa, size, order, &value) == 0 ? value : VMM_MEM_POISON;
}

int vmm_mem_load_error(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order)
{
    uint64_t value = 0;

    return load(map, gpa, size, order, &value);
}

int vmm_mem_store(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order, uint64_t value)
{
    if (size < 8 && size != 0 && value >> (8 * size))
        return -EDOM;
    switch (size) {
    case 1:
        return vmm_store8(map, gpa, order, (uint8_t)value);
    case 2:
        return vmm_store16(map, gpa, order, (uint16_t)value);
    case 4:
        return vmm_store32(map, gpa, order, (uint32_t)value);
    case 8:
        return vmm_store64(map, gpa, order, value);
    default:
        return -EINVAL;
    }
}

int vmm_mem_fill(const struct vmm_map *map, uint64_t gpa, uint64_t len, int byte)
{
    const struct vmm_region *region;
    int rc = vmm_check_from(map, gpa, len, 1, &region);

    if (rc != 0)
        return rc;
    while (len != 0) {
        uint64_t left = vmm_region_left(region, gpa), part = len < left ? len : left;
        /* SAFETY: vmm_check_from proved that the range runs through this region and the ones after it. */
        memset(region->host + (gpa - region->base), byte, part);
        vmm_region_mark_dirty(region, gpa - region->base, part);
        gpa += part;
        len -= part;
        region++;
    }
    return 0;
}

static ssize_t transfer_once(int fd, int64_t offset, const struct iovec *iov, int n, int into_memory)
{
    if (into_memory)
        return offset < 0 ? readv(fd, iov, n) : preadv(fd, iov, n, offset);
    return offset < 0 ? writev(fd, iov, n) : pwritev(fd, iov, n, offset);
}

/* The fragments of a range that was checked, at most IOV_BATCH of them; returns the bytes they cover. */
static uint64_t gather(const struct vmm_map *map, uint64_t gpa, uint64_t len, struct iovec *iov, int *n)
{
    const struct vmm_region *region = vmm_find(map, gpa);
    uint64_t total = 0;

    for (*n = 0; len != 0 && *n < IOV_BATCH; (*n)++, region++) {
        uint64_t left = vmm_region_left(region, gpa), part = len < left ? len : left;
        /* SAFETY: the caller checked the whole range. */
        iov[*n].iov_base = region->host + (gpa - region->base);
        iov[*n].iov_len = part;
        total += part;
        gpa += part;
        len -= part;
    }
    return total;
}

static int transfer(const struct vmm_map *map, uint64_t gpa, uint64_t len, int fd, int64_t offset, int into_memory,
                    uint64_t *ret)
{
    struct iovec iov[IOV_BATCH];
    int n, rc = vmm_check(map, gpa, len, into_memory);

    *ret = 0;
    if (rc != 0)
        return rc;
    while (len != 0) {
        uint64_t covered = gather(map, gpa, len, iov, &n);
        ssize_t moved = transfer_once(fd, offset, iov, n, into_memory);

        if (moved < 0) {
            rc = -errno;
            /* A read that failed half-way may have written any of it. */
            if (into_memory && rc != -EINTR && rc != -EAGAIN)
                vmm_mark_dirty(map, gpa, covered);
            return rc;
        }
        if (moved == 0)
            return 0;
        if (into_memory)
            vmm_mark_dirty(map, gpa, (uint64_t)moved);
        gpa += (uint64_t)moved;
        len -= (uint64_t)moved;
        *ret += (uint64_t)moved;
        if (offset >= 0)
            offset += moved;
    }
    return 0;
}

int vmm_mem_read_fd(const struct vmm_map *map, uint64_t gpa, uint64_t len, int fd, int64_t offset, uint64_t *ret)
{
    return transfer(map, gpa, len, fd, offset, 1, ret);
}

int vmm_mem_write_fd(const struct vmm_map *map, uint64_t gpa, uint64_t len, int fd, int64_t offset, uint64_t *ret)
{
    return transfer(map, gpa, len, fd, offset, 0, ret);
}

/* Bits first..last of one word. */
static uint64_t span_mask(uint64_t first, uint64_t last)
{
    return (~UINT64_C(0) << first) & (~UINT64_C(0) >> (63 - last));
}

/* [first, first + count) cut to the bitmap; 0 when nothing is left. */
static int cut(uint64_t bits, uint64_t first, uint64_t count, uint64_t *last)
{
    if (count == 0 || first >= bits)
        return 0;
    *last = count > bits - first ? bits - 1 : first + count - 1;
    return 1;
}

void vmm_bits_set(uint64_t *words, uint64_t bits, uint64_t first, uint64_t count)
{
    uint64_t bit, last;

    if (!cut(bits, first, count, &last))
        return;
    for (bit = first; bit <= last; bit = (bit | 63) + 1)
        __atomic_fetch_or(&words[bit >> 6], span_mask(bit & 63, last >> 6 == bit >> 6 ? last & 63 : 63), __ATOMIC_RELEASE);
}

void vmm_bits_clear(uint64_t *words, uint64_t bits, uint64_t first, uint64_t count)
{
    uint64_t bit, last;

    if (!cut(bits, first, count, &last))
        return;
    for (bit = first; bit <= last; bit = (bit | 63) + 1)
        __atomic_fetch_and(&words[bit >> 6], ~span_mask(bit & 63, last >> 6 == bit >> 6 ? last & 63 : 63), __ATOMIC_ACQ_REL);
}

int vmm_bits_test(const uint64_t *words, uint64_t bits, uint64_t bit)
{
    return bit < bits ? (int)(__atomic_load_n(&words[bit >> 6], __ATOMIC_ACQUIRE) >> (bit & 63) & 1) : 0;
}

static uint64_t word_count(uint64_t bits)
{
    return bits / 64 + (bits % 64 != 0);
}

void vmm_bits_take(uint64_t *words, uint64_t bits, uint64_t *ret)
{
    uint64_t i, n = word_count(bits);

    /* Looking before the exchange may miss a bit that is being set: it stays for the next round, as if set later. */
    for (i = 0; i < n; i++)
        ret[i] = __atomic_load_n(&words[i], __ATOMIC_RELAXED) ? __atomic_exchange_n(&words[i], 0, __ATOMIC_ACQ_REL) : 0;
}

uint64_t vmm_bits_count(const uint64_t *words, uint64_t bits)
{
    uint64_t i, n = word_count(bits), sum = 0;

    for (i = 0; i < n; i++)
        sum += (uint64_t)__builtin_popcountll(__atomic_load_n(&words[i], __ATOMIC_ACQUIRE));
    return sum;
}

static void merge_bit(uint64_t *words, uint64_t bits, uint32_t shift, uint64_t bit, uint32_t src_shift)
{
    if (src_shift >= shift)
        vmm_bits_set(words, bits, bit << (src_shift - shift), UINT64_C(1) << (src_shift - shift));
    else
        vmm_bits_set(words, bits, bit >> (shift - src_shift), 1);
}

void vmm_bits_merge(uint64_t *words, uint64_t bits, uint32_t shift, const void *src, uint64_t src_bits,
                    uint32_t src_shift)
{
    uint64_t i, word, n = word_count(src_bits);

    for (i = 0; i < n; i++) {
        /* SAFETY: the caller vouches for ceil(src_bits / 64) words at src; memcpy because they may be unaligned. */
        memcpy(&word, (const uint8_t *)src + i * 8, 8);
        if (i == n - 1 && src_bits % 64 != 0)
            word &= span_mask(0, src_bits % 64 - 1);
        if (word == 0)
            continue;
        if (shift == src_shift && (i + 1) * 64 <= bits) {
            __atomic_fetch_or(&words[i], word, __ATOMIC_RELEASE);
            continue;
        }
        for (; word != 0; word &= word - 1)
            merge_bit(words, bits, shift, i * 64 + (uint64_t)__builtin_ctzll(word), src_shift);
    }
}

/* The first bit >= from that is set (flip 0) or clear (flip ~0); bits when there is none. */
static uint64_t next_bit(const uint64_t *words, uint64_t bits, uint64_t from, uint64_t flip)
{
    while (from < bits) {
        uint64_t word = (__atomic_load_n(&words[from >> 6], __ATOMIC_ACQUIRE) ^ flip) >> (from & 63);

        if (word != 0) {
            from += (uint64_t)__builtin_ctzll(word);
            return from < bits ? from : bits;
        }
        from = (from | 63) + 1;
    }
    return bits;
}

uint64_t vmm_bits_runs(const uint64_t *words, uint64_t bits, uint64_t from, uint64_t max, struct vmm_run *ret)
{
    uint64_t n = 0;

    while (n < max) {
        uint64_t end, first = next_bit(words, bits, from, 0);

        if (first >= bits)
            break;
        end = next_bit(words, bits, first, ~UINT64_C(0));
        /* A writer may clear the bit between the two looks; an empty run would make a caller spin. */
        end = end > first ? end : first + 1;
        ret[n].first = first;
        ret[n].count = end - first;
        n++;
        from = end;
    }
    return n;
}

int vmm_mem_selftest_overrun(void)
{
#ifdef VMM_SANITIZE
    volatile size_t past = 16;
    volatile uint8_t *block = malloc(past);

    if (block == NULL)
        return -ENOMEM;
    block[past] = 1;
    free((void *)block);
    return 0;
#else
    return -ENOSYS;
#endif
}
