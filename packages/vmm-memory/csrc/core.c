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

#define MODIFY(bits)                                                                                             \
    case bits / 8: {                                                                                             \
        uint##bits##_t before = 0;                                                                               \
        int rc = op == VMM_MEM_OR    ? vmm_fetch_or##bits(map, gpa, order, (uint##bits##_t)value, &before)       \
                 : op == VMM_MEM_AND ? vmm_fetch_and##bits(map, gpa, order, (uint##bits##_t)value, &before)      \
                 : op == VMM_MEM_ADD ? vmm_fetch_add##bits(map, gpa, order, (uint##bits##_t)value, &before)      \
                                     : vmm_compare_exchange##bits(map, gpa, order, (uint##bits##_t)expected,     \
                                                                  (uint##bits##_t)value, &before);               \
        *ret = before;                                                                                           \
        return rc;                                                                                               \
    }

int vmm_mem_modify(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order, int op, uint64_t value,
                   uint64_t expected, uint64_t *ret)
{
    if (size < 8 && size != 0 && (value | expected) >> (8 * size))
        return -EDOM;
    switch (size) {
        MODIFY(8)
        MODIFY(16)
        MODIFY(32)
        MODIFY(64)
    default:
        return -EINVAL;
    }
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
