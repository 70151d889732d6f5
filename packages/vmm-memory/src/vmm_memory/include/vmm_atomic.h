/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * vmm_atomic.h - atomic read-modify-write of guest memory; public, header only, beside vmm_access.h.
 *
 * For N of 8, 16, 32, 64:
 *   int vmm_fetch_orN(map, gpa, order, operand, uintN_t *ret)      *ret: the value before
 *   int vmm_fetch_andN(map, gpa, order, operand, uintN_t *ret)
 *   int vmm_fetch_addN(map, gpa, order, operand, uintN_t *ret)     wraps
 *   int vmm_compare_exchangeN(map, gpa, order, expected, desired, uintN_t *ret)
 *                                                                  stored exactly when *ret == expected
 * Naturally aligned, in one region that may be read and written. Any VMM_ORDER_* (a failed compare-exchange loads with
 * the order's acquire half). Return values as in vmm_access.h; on failure nothing was changed, marked, or put in *ret.
 * Pages are marked dirty when something was stored, also the value that was there before.
 */
#ifndef VMM_ATOMIC_H
#define VMM_ATOMIC_H

#include "vmm_access.h"

/* Host pointer to an aligned integer of `size` bytes that may be read and written, and its region. */
static inline int vmm_atomic_place(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order, uint8_t **host,
                                   const struct vmm_region **region)
{
    int rc;

    if ((gpa & (size - 1)) || !(VMM_LOAD_ORDER_OK(order) || VMM_STORE_ORDER_OK(order)))
        return -EINVAL;
    rc = vmm_get(map, gpa, size, VMM_READ_WRITE, host);
    if (rc != 0)
        return rc;
    *region = vmm_find(map, gpa);
    return ((uintptr_t)*host & (size - 1)) ? -EINVAL : 0;
}

/* The order is a constant for the compiler in each branch: it would take the strongest one otherwise.
 * SAFETY: vmm_atomic_place proved the bytes mapped, writable, and aligned for the cast. */
#define VMM_DEFINE_FETCH(name, bits, alias)                                                                      \
    static inline int vmm_fetch_##name##bits(const struct vmm_map *map, uint64_t gpa, int order,                 \
                                             uint##bits##_t operand, uint##bits##_t *ret)                        \
    {                                                                                                            \
        const struct vmm_region *region = NULL;                                                                  \
        uint8_t *host = NULL;                                                                                    \
        int rc = vmm_atomic_place(map, gpa, bits / 8, order, &host, &region);                                    \
        if (rc != 0)                                                                                             \
            return rc;                                                                                           \
        if (order == VMM_ORDER_RELAXED)                                                                          \
            *ret = __atomic_fetch_##name((alias *)host, operand, __ATOMIC_RELAXED);                              \
        else if (order == VMM_ORDER_ACQUIRE)                                                                     \
            *ret = __atomic_fetch_##name((alias *)host, operand, __ATOMIC_ACQUIRE);                              \
        else if (order == VMM_ORDER_RELEASE)                                                                     \
            *ret = __atomic_fetch_##name((alias *)host, operand, __ATOMIC_RELEASE);                              \
        else                                                                                                     \
            *ret = __atomic_fetch_##name((alias *)host, operand, __ATOMIC_SEQ_CST);                              \
        vmm_region_mark_dirty(region, gpa - region->base, bits / 8);                                             \
        return 0;                                                                                                \
    }

#define VMM_DEFINE_EXCHANGE(bits, alias)                                                                         \
    static inline int vmm_compare_exchange##bits(const struct vmm_map *map, uint64_t gpa, int order,             \
                                                 uint##bits##_t expected, uint##bits##_t desired,                \
                                                 uint##bits##_t *ret)                                            \
    {                                                                                                            \
        const struct vmm_region *region = NULL;                                                                  \
        uint8_t *host = NULL;                                                                                    \
        int done, rc = vmm_atomic_place(map, gpa, bits / 8, order, &host, &region);                              \
        if (rc != 0)                                                                                             \
            return rc;                                                                                           \
        if (order == VMM_ORDER_RELAXED)                                                                          \
            done = __atomic_compare_exchange_n((alias *)host, &expected, desired, 0, __ATOMIC_RELAXED,           \
                                               __ATOMIC_RELAXED);                                                \
        else if (order == VMM_ORDER_ACQUIRE)                                                                     \
            done = __atomic_compare_exchange_n((alias *)host, &expected, desired, 0, __ATOMIC_ACQUIRE,           \
                                               __ATOMIC_ACQUIRE);                                                \
        else if (order == VMM_ORDER_RELEASE)                                                                     \
            done = __atomic_compare_exchange_n((alias *)host, &expected, desired, 0, __ATOMIC_RELEASE,           \
                                               __ATOMIC_RELAXED);                                                \
        else                                                                                                     \
            done = __atomic_compare_exchange_n((alias *)host, &expected, desired, 0, __ATOMIC_SEQ_CST,           \
                                               __ATOMIC_SEQ_CST);                                                \
        *ret = expected;                                                                                         \
        if (done)                                                                                                \
            vmm_region_mark_dirty(region, gpa - region->base, bits / 8);                                         \
        return 0;                                                                                                \
    }

#define VMM_DEFINE_ATOMICS(bits, alias)                                                                          \
    VMM_DEFINE_FETCH(or, bits, alias)                                                                            \
    VMM_DEFINE_FETCH(and, bits, alias)                                                                           \
    VMM_DEFINE_FETCH(add, bits, alias)                                                                           \
    VMM_DEFINE_EXCHANGE(bits, alias)

VMM_DEFINE_ATOMICS(8, uint8_t)
VMM_DEFINE_ATOMICS(16, vmm_u16_alias)
VMM_DEFINE_ATOMICS(32, vmm_u32_alias)
VMM_DEFINE_ATOMICS(64, vmm_u64_alias)
#undef VMM_DEFINE_ATOMICS
#undef VMM_DEFINE_EXCHANGE
#undef VMM_DEFINE_FETCH

#endif /* VMM_ATOMIC_H */
