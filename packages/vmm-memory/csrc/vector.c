/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * Typed accesses to many addresses in one call; see core.h. */
#include "core.h"

/* The region of the last address, in a form that one comparison checks: an access at `base + offset` is inside when
 * offset < span. span is 0 for no region, and for one in which this access is not possible. */
struct window {
    uint64_t base, span;
    uint8_t *host;
    const struct vmm_region *region;
};

/* Open the window on the region of gpa, or say why not. */
static int __attribute__((noinline)) window_open(const struct vmm_map *map, uint64_t gpa, uint64_t size, int access,
                                                 struct window *ret)
{
    const struct vmm_region *region = vmm_find(map, gpa);

    ret->span = 0;
    if (gpa & (size - 1))
        return -EINVAL;
    if (region == NULL)
        return -EFAULT;
    if (vmm_refuses(region, access))
        return -EACCES;
    /* A region whose host address is aligned otherwise than its base has no aligned access: -EINVAL, as vmm_loadN. */
    if (vmm_region_left(region, gpa) < size || (((uintptr_t)region->host - region->base) & (size - 1)))
        return vmm_region_left(region, gpa) < size ? -EFAULT : -EINVAL;
    *ret = (struct window){region->base, region->size - (size - 1), region->host, region};
    return 0;
}

/* Dirty bits not yet set: those of one word. Marking comes after the stores, and may come late: a harvester that runs
 * in between finds the bit in its next round. */
struct marks {
    uint64_t *word, bits;
};

static inline void marks_flush(struct marks *m)
{
    if (m->word != NULL)
        __atomic_fetch_or(m->word, m->bits, __ATOMIC_RELEASE); /* as in vmm_region_mark_dirty */
}

static inline void marks_add(struct marks *m, const struct vmm_region *region, uint64_t offset)
{
    uint64_t bit = (offset + region->dirty_base) >> region->dirty_shift, *word = region->dirty + (bit >> 6);

    if (word != m->word) {
        marks_flush(m);
        *m = (struct marks){word, 0};
    }
    m->bits |= UINT64_C(1) << (bit & 63);
}

/* SAFETY: offset < span says that all bytes of the access lie in the region; alignment of gpa is tested, and that of the
 * host address is the same (window_open). A page of dirty bits may be smaller than the integer: both ends are marked. */
#define DEFINE_VECTOR(bits, alias)                                                                               \
    static int loads##bits(const struct vmm_map *map, struct vmm_vector *v, int order)                           \
    {                                                                                                            \
        const uint64_t *gpa = v->gpa, count = v->count;                                                          \
        uint##bits##_t *values = (uint##bits##_t *)v->values;                                                    \
        struct window w = {0};                                                                                   \
        uint64_t i = v->done;                                                                                    \
        int rc = 0;                                                                                              \
        while (i < count) {                                                                                      \
            uint64_t at = gpa[i], offset = at - w.base;                                                          \
            if (__builtin_expect(offset >= w.span || (at & (bits / 8 - 1)), 0)) {                                \
                rc = window_open(map, at, bits / 8, VMM_READ, &w);                                               \
                if (rc != 0)                                                                                     \
                    break;                                                                                       \
                continue;                                                                                        \
            }                                                                                                    \
            if (order == VMM_ORDER_RELAXED)                                                                      \
                values[i++] = __atomic_load_n((const alias *)(w.host + offset), __ATOMIC_RELAXED);               \
            else                                                                                                 \
                values[i++] = __atomic_load_n((const alias *)(w.host + offset), __ATOMIC_SEQ_CST);               \
        }                                                                                                        \
        v->done = i;                                                                                             \
        return rc;                                                                                               \
    }                                                                                                            \
    static int stores##bits(const struct vmm_map *map, struct vmm_vector *v, int order)                          \
    {                                                                                                            \
        const uint64_t *gpa = v->gpa, count = v->count;                                                          \
        const uint##bits##_t *values = (const uint##bits##_t *)v->values;                                        \
        struct window w = {0};                                                                                   \
        struct marks m = {0};                                                                                    \
        uint64_t i = v->done;                                                                                    \
        int rc = 0;                                                                                              \
        while (i < count) {                                                                                      \
            uint64_t at = gpa[i], offset = at - w.base;                                                          \
            alias *host;                                                                                         \
            if (__builtin_expect(offset >= w.span || (at & (bits / 8 - 1)), 0)) {                                \
                rc = window_open(map, at, bits / 8, VMM_WRITE, &w);                                              \
                if (rc != 0)                                                                                     \
                    break;                                                                                       \
                continue;                                                                                        \
            }                                                                                                    \
            host = (alias *)(w.host + offset);                                                                   \
            if (order == VMM_ORDER_RELAXED)                                                                      \
                __atomic_store_n(host, values[i++], __ATOMIC_RELAXED);                                           \
            else if (order == VMM_ORDER_RELEASE)                                                                 \
                __atomic_store_n(host, values[i++], __ATOMIC_RELEASE);                                           \
            else                                                                                                 \
                __atomic_store_n(host, values[i++], __ATOMIC_SEQ_CST);                                           \
            if (w.region->dirty == NULL)                                                                         \
                continue;                                                                                        \
            marks_add(&m, w.region, offset);                                                                     \
            if (__builtin_expect(w.region->dirty_shift < 3, 0))                                                  \
                vmm_region_mark_dirty(w.region, offset, bits / 8);                                               \
        }                                                                                                        \
        marks_flush(&m);                                                                                         \
        v->done = i;                                                                                             \
        return rc;                                                                                               \
    }

DEFINE_VECTOR(8, uint8_t)
DEFINE_VECTOR(16, vmm_u16_alias)
DEFINE_VECTOR(32, vmm_u32_alias)
DEFINE_VECTOR(64, vmm_u64_alias)

int vmm_mem_load_vector(const struct vmm_map *map, struct vmm_vector *v, int order, uint64_t first)
{
    v->done = first;
    if (!VMM_LOAD_ORDER_OK(order))
        return -EINVAL;
    switch (v->size) {
    case 1:
        return loads8(map, v, order);
    case 2:
        return loads16(map, v, order);
    case 4:
        return loads32(map, v, order);
    default:
        return loads64(map, v, order);
    }
}

int vmm_mem_store_vector(const struct vmm_map *map, struct vmm_vector *v, int order, uint64_t first)
{
    v->done = first;
    if (!VMM_STORE_ORDER_OK(order))
        return -EINVAL;
    switch (v->size) {
    case 1:
        return stores8(map, v, order);
    case 2:
        return stores16(map, v, order);
    case 4:
        return stores32(map, v, order);
    default:
        return stores64(map, v, order);
    }
}
