/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * Dirty bitmaps; see core.h. */
#include "core.h"

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
