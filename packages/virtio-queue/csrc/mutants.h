/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Private to core.c: historic defects of virtqueue code, planted on purpose to see that the tests find them.
 * -DVQ_MUTANT=n plants one (tools/mutants.py builds it apart); otherwise MUTANT(name, good, bad) is
 * `good` and nothing else: no wheel and no ordinary build contains a bad line. */
#ifndef VIRTQ_MUTANTS_H
#define VIRTQ_MUTANTS_H

/* Notification. */
#define VQ_MUTANT_EVENT_WRAP 1       /* event index compared as plain numbers, not modulo 2^16 */
#define VQ_MUTANT_EVENT_BATCH 2      /* a batch counts as one used element in the decision */
#define VQ_MUTANT_EVENT_REPEAT 3     /* the count outlives the decision: interrupts without cause */
#define VQ_MUTANT_NO_INTERRUPT 4     /* the driver's NO_INTERRUPT flag ignored */
#define VQ_MUTANT_NO_RECHECK 5       /* no second look after notifications were enabled: a lost kick */
#define VQ_MUTANT_EVENT_POSITION 6   /* kick asked for at next_used instead of next_avail */
#define VQ_MUTANT_LIVELOCK 7         /* a broken queue says that there is more, and pops nothing */
#define VQ_MUTANT_EVENT_OFF_BY_ONE 42 /* interrupt when next_used reaches the event, not when it passes it */
#define VQ_MUTANT_EVENT_UNASKED 43   /* event index used without negotiation */
#define VQ_MUTANT_RING_SILENT 44     /* rings outside memory look like rings with nothing in them */
#define VQ_MUTANT_SIZE 45            /* size that is no power of two accepted */
#define VQ_MUTANT_UNBROKEN 46        /* the queue goes on after a fault of the whole ring */
/* Used ring. */
#define VQ_MUTANT_USED_ZERO 8        /* used length always 0 */
#define VQ_MUTANT_USED_EXCESS 9      /* used length beyond the writable bytes accepted */
#define VQ_MUTANT_USED_UNPOPPED 10   /* a completion with nothing in flight accepted */
#define VQ_MUTANT_USED_CLEAN 11      /* pages of the used ring not marked dirty */
#define VQ_MUTANT_USED_DRIFT 47      /* a refused completion moves the used index all the same */
/* Available ring. */
#define VQ_MUTANT_INDEX_JUMP 12      /* available index may run ahead any distance */
#define VQ_MUTANT_IN_FLIGHT 13       /* ... by a whole queue, whatever is in flight */
#define VQ_MUTANT_HEAD 14            /* head outside the table taken for a broken chain */
#define VQ_MUTANT_STUCK 15           /* a broken chain is not taken: the queue stands still */
#define VQ_MUTANT_ROOM_LOST 16       /* the chain for which the batch has no room is lost */
#define VQ_MUTANT_BATCH_LOST 17      /* good chains before a bad head are lost */
#define VQ_MUTANT_UNDO_ONE 48        /* one chain given back, however many were meant */
/* Chains. */
#define VQ_MUTANT_NEXT_BOUND 18      /* next == size accepted */
#define VQ_MUTANT_LOOP 19            /* cycles not recognised */
#define VQ_MUTANT_TOO_LONG 20        /* an indirect table makes chains longer than the queue */
#define VQ_MUTANT_UNASKED 21         /* indirect tables followed without negotiation */
#define VQ_MUTANT_NESTED 22          /* indirect table inside an indirect table */
#define VQ_MUTANT_COMBINED 23        /* INDIRECT and NEXT in one descriptor */
#define VQ_MUTANT_TABLE_SIZE 24      /* table whose length is no multiple of 16 */
#define VQ_MUTANT_TOTAL 25           /* sum of the lengths in 32 bits */
#define VQ_MUTANT_ORDER 26           /* readable buffer after a writable one */
#define VQ_MUTANT_MEMORY_END 27      /* buffer that ends one byte behind memory */
#define VQ_MUTANT_READ_ONLY 28       /* writable buffer in read-only memory */
#define VQ_MUTANT_TRUNCATED 49       /* a broken chain handed out as a shorter one that is sound */
#define VQ_MUTANT_HEAD_LOST 50       /* a broken chain is taken, and nobody learns which: it is never given back */
/* Packed rings. */
#define VQ_MUTANT_PACKED_AVAIL_WRAP 29    /* wrap counter not flipped where the driver's lap ends */
#define VQ_MUTANT_PACKED_USED_WRAP 30     /* ... where the device's does */
#define VQ_MUTANT_PACKED_USED_STATE 31    /* used flags as in the first lap, in every lap */
#define VQ_MUTANT_PACKED_ID_SLOT 32       /* slot given back in place of the buffer id */
#define VQ_MUTANT_PACKED_SKIP_ONE 33      /* a list counted as one descriptor when it is skipped */
#define VQ_MUTANT_PACKED_EVENT_FLAT 34    /* event position compared with the wrap counter as a number */
#define VQ_MUTANT_PACKED_SILENCE 35       /* the driver's wish for silence ignored */
#define VQ_MUTANT_PACKED_NO_RECHECK 36    /* no second look after notifications were enabled */
#define VQ_MUTANT_PACKED_WRITE_FLAG 37    /* WRITE in used descriptors where nothing was written */
#define VQ_MUTANT_PACKED_ID_TWICE 38      /* a buffer id that is in flight accepted again */
#define VQ_MUTANT_PACKED_MIXED 39         /* indirect table behind other elements of a list */
#define VQ_MUTANT_PACKED_CLEAN 40         /* pages of used descriptors not marked dirty */
#define VQ_MUTANT_PACKED_COUNTS_CHAINS 41 /* the decision counts lists, not descriptors */
#define VQ_MUTANT_PACKED_EVENT_REPEAT 51  /* the count outlives the decision */
#define VQ_MUTANT_PACKED_EVENT_UNASKED 52 /* event positions heeded without negotiation */
#define VQ_MUTANT_PACKED_HEAD_LOST 53     /* a broken list is taken without its id */
#define VQ_MUTANT_PACKED_WHOLE_LAP 54     /* wrap counter not flipped by a list as long as the ring */
#define VQ_MUTANT_PACKED_LIST_END 55      /* a list does not go on at the start of the ring */
/* In order. */
#define VQ_MUTANT_IN_ORDER_ANY 56    /* chains may be completed in any order */
#define VQ_MUTANT_IN_ORDER_SHORT 57  /* a chain that was not used completely is spoken for */
#define VQ_MUTANT_IN_ORDER_BROKEN 58 /* ... or one that was broken */
#define VQ_MUTANT_IN_ORDER_PLACE 59  /* a used element lies behind the places of those that it speaks for */

#ifdef VQ_MUTANT
#define MUTANT(name, good, bad) (VQ_MUTANT == VQ_MUTANT_##name ? (bad) : (good))
#else
#define MUTANT(name, good, bad) (good)
#endif

#endif
