/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * vmm_access.h - bounds-checked access to guest memory; public, header only.
 *
 * A map is a sorted table of disjoint regions. All that a `struct vmm_map` leads to is immutable while its owner
 * (vmm_memory.AccessMap) lives, except guest RAM itself and the dirty words.
 * Guest RAM changes under our feet at any time: copy once, check the copy, use the copy.
 *
 * Return values: 0, or
 *   -EFAULT  some byte of the range is not mapped
 *   -EACCES  a write would touch a read-only region, a read one that may only be written
 *   -EINVAL  not naturally aligned, or a memory order that this access cannot have
 *   -ERANGE  the range wraps around 2^64 (to end at exactly 2^64 is legal)
 *   -ENOSPC  vmm_iov only: more fragments than entries
 * On failure nothing has been read, written or marked. In a map with VMM_MAP_TRANSLATED, -EFAULT and -EACCES may
 * only mean "not translated yet": give up the map, have the range resolved (GuestMemory.resolve), try with the next map.
 *
 * Ranges of length 0 are always valid (vmm_check, vmm_read, vmm_write, vmm_iov); vmm_get still wants a mapped address.
 *
 * Builds as C11 with gcc or clang (the __atomic builtins), on little-endian 64-bit Linux. */
#ifndef VMM_ACCESS_H
#define VMM_ACCESS_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || __SIZEOF_POINTER__ != 8
#error "vmm_access.h: only little-endian 64-bit hosts are supported"
#endif

#define VMM_ACCESS_ABI 2u
#define VMM_REGION_READONLY 1u
#define VMM_REGION_WRITEONLY 2u  /* behind an IOMMU only */
#define VMM_MAP_TRANSLATED 1u    /* addresses are IOVAs; the regions are what is translated so far */

/* The parameter `access`: any other value than these two means both at once. */
#define VMM_READ 0
#define VMM_WRITE 1
#define VMM_READ_WRITE 2

/* The values of __ATOMIC_*, so that they can be passed on from other languages. */
#define VMM_ORDER_RELAXED 0
#define VMM_ORDER_ACQUIRE 2
#define VMM_ORDER_RELEASE 3
#define VMM_ORDER_SEQ_CST 5

struct vmm_region {
    uint64_t base;        /* first guest physical address */
    uint64_t size;        /* bytes, never 0; base + size may be exactly 2^64 */
    uint8_t *host;        /* where base is mapped here */
    uint64_t *dirty;      /* one bit per page, or NULL: not tracked */
    uint32_t dirty_shift; /* log2 of the bytes per dirty bit */
    uint32_t flags;       /* VMM_REGION_* */
    uint64_t dirty_base;  /* bytes from what bit 0 stands for to base */
};

struct vmm_map {
    uint64_t abi; /* VMM_MAP_ABI; anything else: do not touch the rest */
    uint64_t count;
    const struct vmm_region *regions; /* sorted by base, disjoint */
    uint64_t flags;                   /* VMM_MAP_* */
};

#define VMM_MAP_ABI (((uint64_t)VMM_ACCESS_ABI << 32) | sizeof(struct vmm_map))

_Static_assert(sizeof(struct vmm_region) == 48, "vmm_region is ABI");
_Static_assert(sizeof(struct vmm_map) == 32, "vmm_map is ABI");
_Static_assert(VMM_ORDER_RELAXED == __ATOMIC_RELAXED && VMM_ORDER_ACQUIRE == __ATOMIC_ACQUIRE &&
                   VMM_ORDER_RELEASE == __ATOMIC_RELEASE && VMM_ORDER_SEQ_CST == __ATOMIC_SEQ_CST,
               "orders are the compiler's");

/* Guest bytes have no C type: these may alias whatever else looks at them. */
typedef uint16_t __attribute__((may_alias)) vmm_u16_alias;
typedef uint32_t __attribute__((may_alias)) vmm_u32_alias;
typedef uint64_t __attribute__((may_alias)) vmm_u64_alias;

/* Was this map made by a compatible vmm-memory? 0 or -EPROTO. Call once when a map is handed over. */
static inline int vmm_map_check(const struct vmm_map *map)
{
    return map != NULL && map->abi == VMM_MAP_ABI && (map->count == 0 || map->regions != NULL) ? 0 : -EPROTO;
}

/* How many regions begin at or below gpa. */
static inline uint64_t vmm_count_below(const struct vmm_map *map, uint64_t gpa)
{
    uint64_t low = 0, high = map->count;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int below = map->regions[middle].base <= gpa;
        low = below ? middle + 1 : low;
        high = below ? high : middle;
    }
    return low;
}

/* The region that holds gpa, or NULL. */
static inline const struct vmm_region *vmm_find(const struct vmm_map *map, uint64_t gpa)
{
    uint64_t below = vmm_count_below(map, gpa);
    if (below == 0 || gpa - map->regions[below - 1].base >= map->regions[below - 1].size)
        return NULL;
    return &map->regions[below - 1];
}

/* Bytes from gpa, which must lie in the region, to the region's end. */
static inline uint64_t vmm_region_left(const struct vmm_region *region, uint64_t gpa)
{
    return region->size - (gpa - region->base);
}

/* Does the region refuse this access? */
static inline int vmm_refuses(const struct vmm_region *region, int access)
{
    uint32_t flags = (access != VMM_READ ? VMM_REGION_READONLY : 0) | (access != VMM_WRITE ? VMM_REGION_WRITEONLY : 0);
    return (region->flags & flags) != 0;
}

/* As vmm_check, and hands out the first region (NULL for an empty range). */
static inline int vmm_check_from(const struct vmm_map *map, uint64_t gpa, uint64_t len, int access,
                                 const struct vmm_region **ret)
{
    const struct vmm_region *region, *end = map->regions + map->count;

    *ret = NULL;
    if (len == 0)
        return 0;
    if (gpa + (len - 1) < gpa)
        return -ERANGE;
    region = vmm_find(map, gpa);
    if (region == NULL)
        return -EFAULT;
    *ret = region;
    for (;;) {
        uint64_t left = vmm_region_left(region, gpa);

        if (vmm_refuses(region, access))
            return -EACCES;
        if (len <= left)
            return 0;
        len -= left;
        gpa += left;
        if (++region == end || region->base != gpa)
            return -EFAULT;
    }
}

/* May [gpa, gpa + len) be accessed? It may span adjacent regions. */
static inline int vmm_check(const struct vmm_map *map, uint64_t gpa, uint64_t len, int access)
{
    const struct vmm_region *first;
    return vmm_check_from(map, gpa, len, access, &first);
}

/* Host pointer to [gpa, gpa + len), which must lie in ONE region (-EFAULT otherwise).
 * Does not mark anything dirty: call vmm_mark_dirty after the last write through the pointer. */
static inline int vmm_get(const struct vmm_map *map, uint64_t gpa, uint64_t len, int access, uint8_t **ret)
{
    const struct vmm_region *region;

    if (len != 0 && gpa + (len - 1) < gpa)
        return -ERANGE;
    region = vmm_find(map, gpa);
    if (region == NULL || len > vmm_region_left(region, gpa))
        return -EFAULT;
    if (vmm_refuses(region, access))
        return -EACCES;
    /* SAFETY: [gpa, gpa + len) was just found inside the region, whose size bytes are mapped at host. */
    *ret = region->host + (gpa - region->base);
    return 0;
}

/* Set the dirty bits of [offset, offset + len) of one region; the range must lie inside it and not be empty. */
static inline void vmm_region_mark_dirty(const struct vmm_region *region, uint64_t offset, uint64_t len)
{
    uint64_t bit, last;
    if (region->dirty == NULL)
        return;
    offset += region->dirty_base;
    bit = offset >> region->dirty_shift;
    last = (offset + (len - 1)) >> region->dirty_shift;
    while (bit <= last) {
        uint64_t word = bit >> 6, first_bit = bit & 63;
        uint64_t last_bit = last >> 6 == word ? last & 63 : 63;
        uint64_t mask = (~UINT64_C(0) << first_bit) & (~UINT64_C(0) >> (63 - last_bit));

        /* Always a read-modify-write. To skip it when the bit reads as set would lose a page: the data store
         * may still be in the store buffer while a harvester clears the bit and sends the old bytes.
         * Release: who takes the bit (acquire) also sees the bytes written before it was set. */
        __atomic_fetch_or(&region->dirty[word], mask, __ATOMIC_RELEASE);
        bit = (word + 1) << 6;
    }
}

/* Mark every page touched by [gpa, gpa + len); unmapped parts and untracked regions are ignored. */
static inline void vmm_mark_dirty(const struct vmm_map *map, uint64_t gpa, uint64_t len)
{
    uint64_t last, i;
    if (len == 0)
        return;
    last = gpa + (len - 1) < gpa ? UINT64_MAX : gpa + (len - 1);
    i = vmm_count_below(map, gpa);
    for (i -= i != 0; i < map->count && map->regions[i].base <= last; i++) {
        const struct vmm_region *region = &map->regions[i];
        uint64_t region_last = region->base + (region->size - 1);
        uint64_t from = gpa > region->base ? gpa : region->base;
        uint64_t to = last < region_last ? last : region_last;

        if (from <= to)
            vmm_region_mark_dirty(region, from - region->base, to - from + 1);
    }
}

/* Pages to be marked, collected, for an atomic operation costs as much as ten stores: a place has the bits of one word, and
 * `used` those of the places. Begins with used = 0, and ends with a flush, after the last write. Marking may come late: who
 * harvests between a write and its mark finds the page in the next round. */
enum { VMM_MARKS = 8 };
struct vmm_marks {
    uint64_t *word[VMM_MARKS], bits[VMM_MARKS];
    uint32_t used;
};

static inline void vmm_marks_flush(struct vmm_marks *marks)
{
    for (; marks->used != 0; marks->used &= marks->used - 1) {
        int place = __builtin_ctz(marks->used);

        __atomic_fetch_or(marks->word[place], marks->bits[place], __ATOMIC_RELEASE); /* as in vmm_region_mark_dirty */
    }
}

/* Add the pages of [offset, offset + len) of a region of the map; the range must lie inside it and not be empty. */
static inline void vmm_marks_add(struct vmm_marks *marks, const struct vmm_map *map, const struct vmm_region *region,
                                 uint64_t offset, uint64_t len)
{
    uint64_t first, last, place, bits, *word;
    if (region->dirty == NULL)
        return;
    first = (offset + region->dirty_base) >> region->dirty_shift;
    last = (offset + region->dirty_base + (len - 1)) >> region->dirty_shift;
    word = region->dirty + (first >> 6);
    place = ((first >> 6) + (uint64_t)(region - map->regions)) % VMM_MARKS;
    bits = UINT64_C(1) << (first & 63);
    if (__builtin_expect(first != last, 0)) {
        if (first >> 6 != last >> 6) {
            vmm_region_mark_dirty(region, offset, len);
            return;
        }
        bits = (~UINT64_C(0) << (first & 63)) & (~UINT64_C(0) >> (63 - (last & 63)));
    }
    if (!(marks->used >> place & 1)) {
        marks->used |= UINT32_C(1) << place;
        marks->word[place] = word;
        marks->bits[place] = 0;
    } else if (marks->word[place] != word) {
        __atomic_fetch_or(marks->word[place], marks->bits[place], __ATOMIC_RELEASE);
        marks->word[place] = word;
        marks->bits[place] = 0;
    }
    marks->bits[place] |= bits;
}

/* The next naturally aligned power of two of at most 8 bytes that fits. */
static inline uint64_t vmm_step(const uint8_t *guest, uint64_t len)
{
    uint64_t step = 8;
    while (step > len || ((uintptr_t)guest & (step - 1)))
        step >>= 1;
    return step;
}

/* Guest to host. Up to 8 bytes move in the largest aligned single accesses (an aligned integer is never torn),
 * more by memcpy, which a guest that writes meanwhile can tear. */
static inline void vmm_copy_in(uint8_t *dst, const uint8_t *guest, uint64_t len)
{
    /* SAFETY: the caller has checked that len bytes are mapped at guest; each step is aligned by vmm_step. */
    if (len > 8) {
        memcpy(dst, guest, len);
    } else {
        while (len != 0) {
            uint64_t value, step = vmm_step(guest, len);
            if (step == 8)
                value = __atomic_load_n((const vmm_u64_alias *)guest, __ATOMIC_RELAXED);
            else if (step == 4)
                value = __atomic_load_n((const vmm_u32_alias *)guest, __ATOMIC_RELAXED);
            else if (step == 2)
                value = __atomic_load_n((const vmm_u16_alias *)guest, __ATOMIC_RELAXED);
            else
                value = __atomic_load_n(guest, __ATOMIC_RELAXED);
            memcpy(dst, &value, step);
            dst += step;
            guest += step;
            len -= step;
        }
    }
    /* Keeps the compiler from reading guest memory again where the caller looks at its copy. */
    __asm__ __volatile__("" ::: "memory");
}

/* Host to guest, same rules. */
static inline void vmm_copy_out(uint8_t *guest, const uint8_t *src, uint64_t len)
{
    /* SAFETY: the caller has checked that len writable bytes are mapped at guest; steps are aligned by vmm_step. */
    if (len > 8) {
        memcpy(guest, src, len);
    } else {
        while (len != 0) {
            uint64_t value = 0, step = vmm_step(guest, len);

            memcpy(&value, src, step);
            if (step == 8)
                __atomic_store_n((vmm_u64_alias *)guest, value, __ATOMIC_RELAXED);
            else if (step == 4)
                __atomic_store_n((vmm_u32_alias *)guest, (uint32_t)value, __ATOMIC_RELAXED);
            else if (step == 2)
                __atomic_store_n((vmm_u16_alias *)guest, (uint16_t)value, __ATOMIC_RELAXED);
            else
                __atomic_store_n(guest, (uint8_t)value, __ATOMIC_RELAXED);
            src += step;
            guest += step;
            len -= step;
        }
    }
    __asm__ __volatile__("" ::: "memory");
}

/* Copy [gpa, gpa + len) out of guest memory, all or nothing; may span adjacent regions. */
static inline int vmm_read(const struct vmm_map *map, uint64_t gpa, void *dst, uint64_t len)
{
    const struct vmm_region *region;
    uint8_t *to = (uint8_t *)dst;
    int rc = vmm_check_from(map, gpa, len, VMM_READ, &region);
    if (rc != 0)
        return rc;
    while (len != 0) {
        uint64_t left = vmm_region_left(region, gpa), part = len < left ? len : left;
        /* SAFETY: vmm_check_from proved that the range runs through this region and the ones after it. */
        vmm_copy_in(to, region->host + (gpa - region->base), part);
        to += part;
        gpa += part;
        len -= part;
        region++;
    }
    return 0;
}

/* Copy into guest memory, all or nothing, and mark the pages dirty; may span adjacent regions. */
static inline int vmm_write(const struct vmm_map *map, uint64_t gpa, const void *src, uint64_t len)
{
    const struct vmm_region *region;
    const uint8_t *from = (const uint8_t *)src;
    int rc = vmm_check_from(map, gpa, len, VMM_WRITE, &region);
    if (rc != 0)
        return rc;
    while (len != 0) {
        uint64_t left = vmm_region_left(region, gpa), part = len < left ? len : left;
        /* SAFETY: as in vmm_read; no region on the way is read-only. */
        vmm_copy_out(region->host + (gpa - region->base), from, part);
        vmm_region_mark_dirty(region, gpa - region->base, part);
        from += part;
        gpa += part;
        len -= part;
        region++;
    }
    return 0;
}

/* The host fragments of [gpa, gpa + len) in order; *n = entries filled. Does not mark anything dirty. */
static inline int vmm_iov(const struct vmm_map *map, uint64_t gpa, uint64_t len, int access, struct iovec *iov,
                          size_t max, size_t *n)
{
    const struct vmm_region *region;
    size_t used = 0;
    int rc = vmm_check_from(map, gpa, len, access, &region);

    *n = 0;
    if (rc != 0)
        return rc;
    while (len != 0) {
        uint64_t left = vmm_region_left(region, gpa), part = len < left ? len : left;
        if (used == max)
            return -ENOSPC;
        /* SAFETY: as in vmm_read. */
        iov[used].iov_base = region->host + (gpa - region->base);
        iov[used].iov_len = part;
        used++;
        gpa += part;
        len -= part;
        region++;
    }
    *n = used;
    return 0;
}

#define VMM_LOAD_ORDER_OK(order) ((order) == VMM_ORDER_RELAXED || (order) == VMM_ORDER_ACQUIRE || (order) == VMM_ORDER_SEQ_CST)
#define VMM_STORE_ORDER_OK(order) ((order) == VMM_ORDER_RELAXED || (order) == VMM_ORDER_RELEASE || (order) == VMM_ORDER_SEQ_CST)

/* int vmm_loadN(map, gpa, memory_order, uintN_t *ret) and int vmm_storeN(map, gpa, memory_order, value):
 * one atomic access of N bits in one region, naturally aligned (-EINVAL otherwise); a store marks its page dirty.
 * SAFETY: vmm_get proved the bytes mapped, the mask test proved them aligned for the cast. */
#define VMM_DEFINE_ACCESS(bits, alias)                                                                           \
    static inline int vmm_load##bits(const struct vmm_map *map, uint64_t gpa, int order, uint##bits##_t *ret)    \
    {                                                                                                            \
        uint8_t *host = NULL;                                                                                    \
        int rc = vmm_get(map, gpa, bits / 8, VMM_READ, &host);                                                   \
        if ((gpa & (bits / 8 - 1)) || !VMM_LOAD_ORDER_OK(order))                                                 \
            return -EINVAL;                                                                                      \
        if (rc != 0)                                                                                             \
            return rc;                                                                                           \
        if ((uintptr_t)host & (bits / 8 - 1))                                                                    \
            return -EINVAL;                                                                                      \
        if (order == VMM_ORDER_RELAXED)                                                                          \
            *ret = __atomic_load_n((const alias *)host, __ATOMIC_RELAXED);                                       \
        else                                                                                                     \
            *ret = __atomic_load_n((const alias *)host, __ATOMIC_SEQ_CST);                                       \
        return 0;                                                                                                \
    }                                                                                                            \
    static inline int vmm_store##bits(const struct vmm_map *map, uint64_t gpa, int order, uint##bits##_t value)  \
    {                                                                                                            \
        const struct vmm_region *region;                                                                         \
        uint8_t *host;                                                                                           \
        int rc = vmm_check_from(map, gpa, bits / 8, VMM_WRITE, &region);                                         \
        if ((gpa & (bits / 8 - 1)) || !VMM_STORE_ORDER_OK(order))                                                \
            return -EINVAL;                                                                                      \
        if (rc != 0)                                                                                             \
            return rc;                                                                                           \
        host = region->host + (gpa - region->base);                                                              \
        if (vmm_region_left(region, gpa) < bits / 8 || ((uintptr_t)host & (bits / 8 - 1)))                       \
            return -EINVAL;                                                                                      \
        if (order == VMM_ORDER_RELAXED)                                                                          \
            __atomic_store_n((alias *)host, value, __ATOMIC_RELAXED);                                            \
        else if (order == VMM_ORDER_RELEASE)                                                                     \
            __atomic_store_n((alias *)host, value, __ATOMIC_RELEASE);                                            \
        else                                                                                                     \
            __atomic_store_n((alias *)host, value, __ATOMIC_SEQ_CST);                                            \
        vmm_region_mark_dirty(region, gpa - region->base, bits / 8);                                             \
        return 0;                                                                                                \
    }

VMM_DEFINE_ACCESS(8, uint8_t)
VMM_DEFINE_ACCESS(16, vmm_u16_alias)
VMM_DEFINE_ACCESS(32, vmm_u32_alias)
VMM_DEFINE_ACCESS(64, vmm_u64_alias)
#undef VMM_DEFINE_ACCESS

#endif /* VMM_ACCESS_H */
