/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * What vmm_memory needs besides vmm_access.h: mappings, transfers to and from file descriptors, bitmaps.
 * No Python, no policy, no globals. Functions return 0 or -errno unless said otherwise; results go out through `ret`.
 */
#ifndef VMM_MEMORY_CORE_H
#define VMM_MEMORY_CORE_H

#include "vmm_access.h"

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
int vmm_mem_fill(const struct vmm_map *map, uint64_t gpa, uint64_t len, int byte);

/* Move len bytes between memory and fd; offset -1: at the file's own position. *ret: bytes moved, also on failure.
 * 0 with *ret < len: end of file. -EINTR comes back to the caller (who may have signals to handle). */
int vmm_mem_read_fd(const struct vmm_map *map, uint64_t gpa, uint64_t len, int fd, int64_t offset, uint64_t *ret);
int vmm_mem_write_fd(const struct vmm_map *map, uint64_t gpa, uint64_t len, int fd, int64_t offset, uint64_t *ret);

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
