/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * What vmm_memory needs besides the public headers: mappings (core.c), many bytes in one call (bulk.c), many integers
 * in one call (vector.c), bitmaps (bits.c).
 * No Python, no policy, no globals. Functions return 0 or -errno unless said otherwise; results go out through `ret`.
 */
#ifndef VMM_MEMORY_CORE_H
#define VMM_MEMORY_CORE_H

#include "vmm_access.h"
#include "vmm_atomic.h"

#define VMM_MEM_SHARED 1u   /* MAP_SHARED, else MAP_PRIVATE */
#define VMM_MEM_READONLY 2u /* PROT_READ only */
#define VMM_MEM_RESERVE 4u  /* account for the pages now (hugetlb: fail here and not by SIGBUS later) */

/* size usable bytes at host, inside a reservation that keeps a PROT_NONE page before and after them. */
struct vmm_mapping {
    uint8_t *host;
    uint64_t size;
    uint8_t *reserve;
    uint64_t reserved;
};

struct vmm_run {
    uint64_t first, count; /* pages */
};

struct vmm_range {
    uint64_t gpa, len;
};

/* `count` integers of `size` bytes at as many addresses. The arrays belong to the caller, and have that many entries. */
struct vmm_vector {
    uint64_t count;
    uint64_t size; /* 1, 2, 4 or 8 */
    const uint64_t *gpa;
    uint8_t *values; /* aligned for their size */
    uint64_t done;   /* out: how many were accessed before the end or the failure */
    uint32_t *hints; /* for vector.c to remember regions in; any content is right */
};

/* A map and a vector, for calls that take nothing else (core.csrc.c); it never changes. */
struct vmm_vector_call {
    const struct vmm_map *map;
    struct vmm_vector *vector;
};

/* Map size bytes of fd at offset (fd -1: anonymous). host is congruent to base modulo align, so that a hypervisor can
 * use large pages. align: a power of two of at least the page size. Forked children do not inherit it. */
int vmm_mem_map(uint64_t size, uint64_t base, uint64_t align, int fd, uint64_t offset, uint32_t flags,
                struct vmm_mapping *ret);
int vmm_mem_unmap(uint8_t *reserve, uint64_t reserved);

/* Bytes per page of what fd maps: the huge page size on hugetlbfs, the host's page size elsewhere. */
int vmm_mem_backing_page(int fd, uint64_t *ret);
/* Make the kernel back every page now. write: 0 for read-only mappings. -EINTR: call again. */
int vmm_mem_prefault(uint8_t *host, uint64_t size, int write);
/* Give pages back; they read as zero (private file mappings: as the file) afterwards. fd -1 or private: MADV_DONTNEED. */
int vmm_mem_discard(uint8_t *host, uint64_t size, int fd, uint64_t offset, int shared);

/* One little-endian integer of 1, 2, 4 or 8 bytes. Returns it, or VMM_MEM_POISON when the access failed *or* guest
 * memory holds that very value: then (and only then) ask vmm_mem_load_error. One crossing in the usual case. */
#define VMM_MEM_POISON UINT64_C(0xB5E15B0D0BADF00D)
uint64_t vmm_mem_load(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order);
int vmm_mem_load_error(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order);
int vmm_mem_store(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order, uint64_t value);
/* One read-modify-write; *ret is the value before. op: VMM_MEM_OR and so on; expected: of VMM_MEM_EXCHANGE only. -EDOM: a
 * value does not fit size. */
#define VMM_MEM_OR 0
#define VMM_MEM_AND 1
#define VMM_MEM_ADD 2
#define VMM_MEM_EXCHANGE 3
int vmm_mem_modify(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order, int op, uint64_t value,
                   uint64_t expected, uint64_t *ret);

/* Load into or store from all of a vector, from entry `first` on, one after the other. On failure v->done is the entry
 * that failed; those before it are done. */
int vmm_mem_load_vector(const struct vmm_map *map, struct vmm_vector *v, int order, uint64_t first);
int vmm_mem_store_vector(const struct vmm_map *map, struct vmm_vector *v, int order, uint64_t first);

/* How many of len bytes from gpa on can be accessed without a gap. */
uint64_t vmm_mem_reach(const struct vmm_map *map, uint64_t gpa, uint64_t len, int access);
int vmm_mem_fill(const struct vmm_map *map, uint64_t gpa, uint64_t len, int byte);
/* As memmove. */
int vmm_mem_copy(const struct vmm_map *map, uint64_t dst, uint64_t src, uint64_t len);
/* *ret: how many of len bytes at gpa are equal to those of data (NULL: to those at `other`) before the first that is not. */
int vmm_mem_compare(const struct vmm_map *map, uint64_t gpa, const uint8_t *data, uint64_t other, uint64_t len,
                    uint64_t *ret);
/* *ret: where in the range needle begins first; UINT64_MAX: nowhere. Linear. scratch: room >= 2 * size, size >= 1. */
int vmm_mem_find(const struct vmm_map *map, uint64_t gpa, uint64_t len, const uint8_t *needle, uint64_t size,
                 uint8_t *scratch, uint64_t room, uint64_t *ret);

/* Lists of ranges: checked whole before the first byte moves; *ret: the range that failed, or count. */
int vmm_mem_check_ranges(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, int access,
                         uint64_t *ret);
int vmm_mem_gather(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, uint8_t *dst,
                   uint64_t *ret);
int vmm_mem_scatter(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, const uint8_t *src,
                    uint64_t *ret);
/* Move bytes between ranges that were checked, from `skip` bytes on, and fd; offset -1: at the file's own position.
 * once: one system call. *ret: bytes moved, also on failure. 0 with fewer than asked: end of file, or once.
 * -EINTR comes back to the caller (who may have signals to handle). */
int vmm_mem_transfer(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, uint64_t skip, int fd,
                     int64_t offset, int into_memory, int once, uint64_t *ret);

/* Bitmaps of `bits` bits in 64-bit words; the unused bits of the last word are always 0. Each word is atomic, the whole
 * is not: a bit set meanwhile is either taken now or next time, never lost and never twice. */
void vmm_bits_set(uint64_t *words, uint64_t bits, uint64_t first, uint64_t count);
void vmm_bits_clear(uint64_t *words, uint64_t bits, uint64_t first, uint64_t count);
int vmm_bits_test(const uint64_t *words, uint64_t bits, uint64_t bit); /* 0 or 1; 0 outside */
void vmm_bits_take(uint64_t *words, uint64_t bits, uint64_t *ret);
uint64_t vmm_bits_count(const uint64_t *words, uint64_t bits);
/* OR a plain bitmap of src_bits bits in, 2^src_shift bytes a bit, into one of 2^shift bytes a bit. */
void vmm_bits_merge(uint64_t *words, uint64_t bits, uint32_t shift, const void *src, uint64_t src_bits,
                    uint32_t src_shift);
/* Runs of set bits from bit `from` on, at most max of them, two runs never touch; returns how many. */
uint64_t vmm_bits_runs(const uint64_t *words, uint64_t bits, uint64_t from, uint64_t max, struct vmm_run *ret);

/* Under VMM_SANITIZE writes one byte past a heap block, for a test that ASan is awake; else -ENOSYS. */
int vmm_mem_selftest_overrun(void);

#endif
