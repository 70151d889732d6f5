/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * Private to the core: what a vCPU is, and how a thread takes it for itself. */
#ifndef KVMX_VCPU_H
#define KVMX_VCPU_H

#include "core.h"
#include "signals.h"

#include <errno.h>

/* Exits of one vCPU with their times. Only the thread that is inside the vCPU touches it. */
struct kvmx_trace {
	struct kvmx_traced *records; /* NULL: not traced */
	uint32_t room, n;
};

enum { IDLE = 0, RUNNING = 1, BUSY = 2, CLOSED = 3 };

struct kvmx_vcpu {
	struct kx_run *run;
	uint64_t run_size;
	int fd;
	int32_t tid;      /* who is inside; the kick's target */
	int32_t runner;   /* who ran last; its signal mask is known to let the kick through */
	uint32_t state;
	uint32_t kicked;  /* a kick not yet reported */
	uint32_t kickers; /* threads between reading state and sending the signal */
	struct kvmx_exit exit;
	struct kvmx_stats stats;
	struct kvmx_trace trace;
};

static inline int enter(struct kvmx_vcpu *v, uint32_t state)
{
	uint32_t idle = IDLE;
	if (!__atomic_compare_exchange_n(&v->state, &idle, state, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return idle == CLOSED ? -EBADF : -EDEADLK; /* no vCPU ioctl gives this errno, so it is ours alone */
	__atomic_store_n(&v->tid, kvmx_thread_id(), __ATOMIC_SEQ_CST);
	return 0;
}

static inline void leave(struct kvmx_vcpu *v)
{
	__atomic_store_n(&v->tid, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->state, IDLE, __ATOMIC_SEQ_CST);
}

/* The time, for `kvmx_trace_add`; 0 when nobody wants to know. */
uint64_t kvmx_trace_now(const struct kvmx_vcpu *v);
void kvmx_trace_add(struct kvmx_vcpu *v, uint64_t entered, uint64_t left, enum kvmx_how how);

#endif
