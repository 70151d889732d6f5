/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * For -include: every atomic access and fence of a translation unit is recorded, with its address, size and order. */
#ifndef WAKEUPS_TRACE_H
#define WAKEUPS_TRACE_H

/* No header: whoever is compiled defines its feature macros first. */
typedef __UINT64_TYPE__ trace_u64;
typedef __UINT32_TYPE__ trace_u32;
typedef __INT32_TYPE__ trace_i32;

#define TRACE_MAX 4096u

struct trace_access {
	trace_u64 address;
	trace_u32 kind; /* 'L' load, 'S' store, 'F' fence, 'U' read-modify-write */
	trace_u32 bytes;
	trace_i32 order; /* __ATOMIC_* */
	trace_i32 unused;
};

struct trace_log {
	trace_u64 count;
	struct trace_access accesses[TRACE_MAX];
};

/* One log for all translation units of an object. */
__attribute__((weak)) struct trace_log trace_log;

static inline void trace_note(trace_u32 kind, const volatile void *address, trace_u32 bytes, int order)
{
	if (trace_log.count < TRACE_MAX)
		trace_log.accesses[trace_log.count] = (struct trace_access){(trace_u64)address, kind, bytes, order, 0};
	trace_log.count++;
}

/* A macro is not expanded within itself: these end in the compiler's own. */
#define __atomic_load_n(p, order) (trace_note('L', (p), sizeof(*(p)), order), __atomic_load_n(p, order))
#define __atomic_store_n(p, value, order) (trace_note('S', (p), sizeof(*(p)), order), __atomic_store_n(p, value, order))
#define __atomic_fetch_or(p, value, order) (trace_note('U', (p), sizeof(*(p)), order), __atomic_fetch_or(p, value, order))
#define __atomic_thread_fence(order) (trace_note('F', 0, 0, order), __atomic_thread_fence(order))

#endif
