/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * Typed accesses to many addresses in one call; see core.h. */
#include "core.h"

/* The region of an access that must be possible, for which the hint is none. NULL: *rc says why not. */
static const struct vmm_region *__attribute__((noinline))
search(const struct vmm_map *map, uint64_t gpa, uint64_t size, int access, uint32_t *hint, int *rc)
{
    const struct vmm_region *region = vmm_find(map, gpa);

    if (gpa & (size - 1))
        *rc = -EINVAL;
    else if (region == NULL)
        *rc = -EFAULT;
    else if (vmm_refuses(region, access))
        *rc = -EACCES;
    else if (vmm_region_left(region, gpa) < size)
        *rc = -EFAULT;
    else if (((uintptr_t)region->host - region->base) & (size - 1))
        *rc = -EINVAL; /* host aligned otherwise than base: no aligned access is possible, as in vmm_loadN */
    else
        *hint = (uint32_t)(region - map->regions);
    return *rc == 0 ? region : NULL;
}

/* As search. A hint is the number of the region in which this entry of the vector was found last, perhaps in another
 * map: it is worth a look, and never believed. */
static inline const struct vmm_region *enter(const struct vmm_map *map, uint64_t gpa, uint64_t size, int access,
                                             uint32_t *hint, int *rc)
{
    if (*hint < map->count) {
        const struct vmm_region *region = &map->regions[*hint];

        if (gpa - region->base < region->size && vmm_region_left(region, gpa) >= size && !vmm_refuses(region, access) &&
            ((gpa | ((uintptr_t)region->host - region->base)) & (size - 1)) == 0)
            return region;
    }
    return search(map, gpa, size, access, hint, rc);
}

/* The region of the last address, which one comparison finds the next one in. */
struct window {
    uint64_t base, span; /* an access at base + offset is inside when offset < span */
    uint8_t *host;
    const struct vmm_region *region;
};

static inline int window_move(struct window *w, const struct vmm_map *map, uint64_t gpa, uint64_t size, int access,
                              uint32_t *hint)
{
    int rc = 0;
    const struct vmm_region *region = enter(map, gpa, size, access, hint, &rc);

    if (region != NULL)
        *w = (struct window){region->base, region->size - (size - 1), region->host, region};
    return rc;
}

struct four {
    uint64_t a, b, c, d; /* one by one: of an array the compiler makes vectors, at twice the cost */
};

/* Where the next four accesses go; 0 unless all of them are in the window and aligned. Each address is read once: another
 * thread may write there. */
static inline int window_has_four(const struct window *w, const uint64_t *gpa, uint64_t size, struct four *at)
{
    uint64_t a = __atomic_load_n(gpa, __ATOMIC_RELAXED), b = __atomic_load_n(gpa + 1, __ATOMIC_RELAXED),
             c = __atomic_load_n(gpa + 2, __ATOMIC_RELAXED), d = __atomic_load_n(gpa + 3, __ATOMIC_RELAXED);

    *at = (struct four){a - w->base, b - w->base, c - w->base, d - w->base};
    return !((at->a >= w->span) | (at->b >= w->span) | (at->c >= w->span) | (at->d >= w->span) |
             (((a | b | c | d) & (size - 1)) != 0));
}

/* Relaxed accesses go four at a time while they stay in one region, stores if no page is to be marked: with one branch for
 * four, and no store between loads, they take half the time.
 * SAFETY: offset < span says that all bytes of the access lie in the region; alignment of the address is tested, and that
 * of the host address is the same (enter). */
#define DEFINE_VECTOR(bits, alias)                                                                               \
    static inline int loads##bits(const struct vmm_map *map, struct vmm_vector *v, int relaxed)                  \
    {                                                                                                            \
        const uint64_t *gpa = v->gpa, count = v->count;                                                          \
        uint##bits##_t *values = (uint##bits##_t *)v->values;                                                    \
        struct window w = {0};                                                                                   \
        uint64_t i = v->done;                                                                                    \
        int rc = 0, streak = 0;                                                                                  \
        while (i < count) {                                                                                      \
            struct four part;                                                                                    \
            while (streak >= 2 && count - i >= 4 && window_has_four(&w, gpa + i, bits / 8, &part)) {             \
                uint##bits##_t a = __atomic_load_n((const alias *)(w.host + part.a), __ATOMIC_RELAXED),          \
                               b = __atomic_load_n((const alias *)(w.host + part.b), __ATOMIC_RELAXED),          \
                               c = __atomic_load_n((const alias *)(w.host + part.c), __ATOMIC_RELAXED),          \
                               d = __atomic_load_n((const alias *)(w.host + part.d), __ATOMIC_RELAXED);          \
                values[i] = a, values[i + 1] = b, values[i + 2] = c, values[i + 3] = d;                          \
                i += 4;                                                                                          \
            }                                                                                                    \
            if (i == count)                                                                                      \
                break;                                                                                           \
            uint64_t at = __atomic_load_n(gpa + i, __ATOMIC_RELAXED), offset = at - w.base;                      \
            if (__builtin_expect(offset >= w.span || (at & (bits / 8 - 1)), 0)) {                                \
                rc = window_move(&w, map, at, bits / 8, VMM_READ, v->hints + i);                                 \
                if (rc != 0)                                                                                     \
                    break;                                                                                       \
                offset = at - w.base;                                                                            \
                streak = 0;                                                                                      \
            }                                                                                                    \
            streak += relaxed;                                                                                   \
            if (relaxed)                                                                                         \
                values[i++] = __atomic_load_n((const alias *)(w.host + offset), __ATOMIC_RELAXED);               \
            else                                                                                                 \
                values[i++] = __atomic_load_n((const alias *)(w.host + offset), __ATOMIC_SEQ_CST);               \
        }                                                                                                        \
        v->done = i;                                                                                             \
        return rc;                                                                                               \
    }                                                                                                            \
    static inline int stores##bits(const struct vmm_map *map, struct vmm_vector *v, int order)                   \
    {                                                                                                            \
        const uint64_t *gpa = v->gpa, count = v->count;                                                          \
        const uint##bits##_t *values = (const uint##bits##_t *)v->values;                                        \
        struct window w = {0};                                                                                   \
        struct vmm_marks marks;                                                                                  \
        uint64_t i = v->done;                                                                                    \
        int rc = 0, streak = 0;                                                                                  \
        marks.used = 0;                                                                                          \
        while (i < count) {                                                                                      \
            struct four part;                                                                                    \
            while (streak >= 2 && count - i >= 4 && window_has_four(&w, gpa + i, bits / 8, &part)) {             \
                __atomic_store_n((alias *)(w.host + part.a), values[i], __ATOMIC_RELAXED);                       \
                __atomic_store_n((alias *)(w.host + part.b), values[i + 1], __ATOMIC_RELAXED);                   \
                __atomic_store_n((alias *)(w.host + part.c), values[i + 2], __ATOMIC_RELAXED);                   \
                __atomic_store_n((alias *)(w.host + part.d), values[i + 3], __ATOMIC_RELAXED);                   \
                i += 4;                                                                                          \
            }                                                                                                    \
            if (i == count)                                                                                      \
                break;                                                                                           \
            uint64_t at = __atomic_load_n(gpa + i, __ATOMIC_RELAXED), offset = at - w.base;                      \
            if (__builtin_expect(offset >= w.span || (at & (bits / 8 - 1)), 0)) {                                \
                rc = window_move(&w, map, at, bits / 8, VMM_WRITE, v->hints + i);                                \
                if (rc != 0)                                                                                     \
                    break;                                                                                       \
                offset = at - w.base;                                                                            \
                streak = 0;                                                                                      \
            }                                                                                                    \
            streak += order == VMM_ORDER_RELAXED && w.region->dirty == NULL;                                     \
            if (order == VMM_ORDER_RELAXED)                                                                      \
                __atomic_store_n((alias *)(w.host + offset), values[i++], __ATOMIC_RELAXED);                     \
            else if (order == VMM_ORDER_RELEASE)                                                                 \
                __atomic_store_n((alias *)(w.host + offset), values[i++], __ATOMIC_RELEASE);                     \
            else                                                                                                 \
                __atomic_store_n((alias *)(w.host + offset), values[i++], __ATOMIC_SEQ_CST);                     \
            vmm_marks_add(&marks, map, w.region, offset, bits / 8);                                              \
        }                                                                                                        \
        vmm_marks_flush(&marks);                                                                                 \
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
        return loads8(map, v, order == VMM_ORDER_RELAXED);
    case 2:
        return loads16(map, v, order == VMM_ORDER_RELAXED);
    case 4:
        return loads32(map, v, order == VMM_ORDER_RELAXED);
    default:
        return loads64(map, v, order == VMM_ORDER_RELAXED);
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
