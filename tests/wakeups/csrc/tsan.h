/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * For -include in builds with ThreadSanitizer, which does not understand bare fences: there they become
 * read-modify-writes of one word. That orders a little more than a fence does; a race that hides behind it is found by
 * the exploration of the protocol (virtio_queue.testing.notifications). */
#ifndef WAKEUPS_TSAN_H
#define WAKEUPS_TSAN_H

#ifdef __SANITIZE_THREAD__
void __tsan_release(void *address);
void __tsan_acquire(void *address);

static inline void tsan_fence(void)
{
	/* One word for all translation units of an object: the linker merges weak definitions. */
	extern unsigned tsan_fence_word;

	__atomic_fetch_add(&tsan_fence_word, 1, __ATOMIC_SEQ_CST);
}

__attribute__((weak)) unsigned tsan_fence_word;

#define __atomic_thread_fence(order) ((void)(order), tsan_fence())
#endif

#endif
