/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#define _GNU_SOURCE
#include "vcpu.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- life ---- */
int kvmx_vcpu_create(int fd, uint32_t run_size, struct kvmx_vcpu **ret)
{
	if (run_size < sizeof(struct kx_run))
		return -EPROTO;
	struct kvmx_vcpu *v = calloc(1, sizeof *v);
	if (!v)
		return -ENOMEM;
	void *page = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED) {
		int err = errno;
		free(v);
		return -err;
	}
	/* A child must not be able to disturb the run page of its parent's vCPU. */
	madvise(page, run_size, MADV_DONTFORK);
	v->run = page;
	v->run_size = run_size;
	v->fd = fd;
	*ret = v;
	return 0;
}

int kvmx_vcpu_close(struct kvmx_vcpu *v)
{
	uint32_t idle = IDLE;
	if (!__atomic_compare_exchange_n(&v->state, &idle, CLOSED, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return idle == CLOSED ? 0 : -EDEADLK;
	/* A kicker that saw another state may still touch the run page; it holds no lock and ends soon. */
	while (__atomic_load_n(&v->kickers, __ATOMIC_SEQ_CST))
		sched_yield();
	munmap(v->run, v->run_size);
	v->run = NULL;
	return close(v->fd) < 0 ? -errno : 0;
}

void kvmx_vcpu_abandon(struct kvmx_vcpu *v)
{
	/* Closed already, or just being closed in the parent when it forked: the number may be somebody else's. */
	if (__atomic_exchange_n(&v->state, CLOSED, __ATOMIC_SEQ_CST) == CLOSED)
		return;
	v->run = NULL;
	close(v->fd);
}

void kvmx_vcpu_destroy(struct kvmx_vcpu *v)
{
	free(v->trace.records);
	free(v);
}

/* ---- ioctls ---- */
int kvmx_ioctl(int fd, uint64_t nr, void *arg)
{
	int ret, tries = 1000; /* a signal storm must not become a hang */
	do
		ret = ioctl(fd, (unsigned long)nr, arg);
	while (ret < 0 && errno == EINTR && --tries);
	return ret < 0 ? -errno : ret;
}

int kvmx_ioctl_value(int fd, uint64_t nr, uint64_t arg)
{
	/* SAFETY: used only with the ioctls that take a number; the kernel never dereferences it. */
	return kvmx_ioctl(fd, nr, (void *)(uintptr_t)arg);
}

int kvmx_vcpu_ioctl(struct kvmx_vcpu *v, uint64_t nr, void *arg)
{
	int ret = enter(v, BUSY);
	if (ret)
		return ret;
	ret = kvmx_ioctl(v->fd, nr, arg);
	leave(v);
	return ret;
}

int kvmx_vcpu_ioctl_value(struct kvmx_vcpu *v, uint64_t nr, uint64_t arg)
{
	return kvmx_vcpu_ioctl(v, nr, (void *)(uintptr_t)arg);
}

/* ---- the run loop ---- */
static void set_immediate(struct kvmx_vcpu *v, uint8_t value)
{
	__atomic_store_n(&v->run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

/* The order in both halves of the kick is what makes it lossless (README, "The kick"):
 * the kicker stores kicked before immediate_exit, the runner clears immediate_exit before it takes
 * kicked. A stale immediate_exit costs one empty KVM_RUN; a lost kick cannot happen. */
static int take_kick(struct kvmx_vcpu *v)
{
	set_immediate(v, 0);
	if (!__atomic_exchange_n(&v->kicked, 0, __ATOMIC_SEQ_CST))
		return 0;
	v->stats.kicks++;
	return 1;
}

static void nap(uint64_t round)
{
	/* The kernel blocks an AP until something wakes it, so EAGAIN is rare; if one came in a burst,
	 * give the processor away. A kick ends ppoll early. */
	struct timespec ts = {.tv_nsec = round < 16 ? 20000 : 1000000};
	ppoll(NULL, 0, &ts, NULL);
}

static void fill_ones(struct kvmx_vcpu *v)
{
	const struct kvmx_exit *e = &v->exit;
	/* An unanswered read must not hand the guest what the page held before.
	 * SAFETY: kvmx_decode bounded data_offset + count * size by run_size. */
	if (e->count && !e->is_write)
		memset((uint8_t *)v->run + e->data_offset, 0xff, (uint64_t)e->size * e->count);
}

/* After a failed KVM_RUN: 0 = try again, 1 = an exit is in the page, -errno = return that. */
static int failed_run(struct kvmx_vcpu *v, int err, int complete_only, uint64_t *waits)
{
	if (err == EINTR) {
		if (complete_only) {
			set_immediate(v, 0); /* a waiting kick raises it again when run starts */
			return -EINTR;
		}
		if (take_kick(v))
			return -EINTR;
		v->stats.interrupted++;
		return -ERESTART;
	}
	if (err == EAGAIN) {
		if (complete_only || take_kick(v))
			return -EINTR;
		v->stats.waits++;
		nap((*waits)++);
		return 0;
	}
	if ((err == EFAULT || err == EHWPOISON) && v->run->exit_reason == KX_EXIT_MEMORY_FAULT)
		return 1;
	return -err;
}

/* Put a return of KVM_RUN without an exit into the trace, if one of the counters has it. */
static void trace_failed(struct kvmx_vcpu *v, int next, uint64_t entered, uint64_t left)
{
	if (next == 0)
		kvmx_trace_add(v, entered, left, KVMX_WAIT);
	else if (next == -EINTR)
		kvmx_trace_add(v, entered, left, KVMX_KICK);
	else if (next == -ERESTART)
		kvmx_trace_add(v, entered, left, KVMX_SIGNAL);
}

static int run_loop(struct kvmx_vcpu *v, struct kvmx_table *t, int complete_only)
{
	uint64_t waits = 0;
	for (int budget = KVMX_RUN_BUDGET; budget; budget--) {
		if (v->trace.room && v->trace.n == v->trace.room)
			return -ENOBUFS; /* what comes next would have no place */
		if (complete_only || __atomic_load_n(&v->kicked, __ATOMIC_SEQ_CST))
			set_immediate(v, 1);
		/* A stale one would make another EFAULT look like a memory fault. Any other reason stays: by it the
		 * kernels of arm64 and riscv64 know what they have to complete. */
		if (v->run->exit_reason == KX_EXIT_MEMORY_FAULT)
			v->run->exit_reason = KX_EXIT_UNKNOWN;
		uint64_t entered = kvmx_trace_now(v);
		int ran = ioctl(v->fd, KX_RUN, 0), failure = errno;
		uint64_t left = kvmx_trace_now(v);
		if (ran < 0) {
			int next = failed_run(v, failure, complete_only, &waits);
			if (!complete_only)
				trace_failed(v, next, entered, left);
			if (next < 0)
				return next;
			if (!next)
				continue;
		}
		int err = kvmx_decode((const uint8_t *)v->run, v->run_size, &v->exit);
		if (err)
			return err;
		uint32_t reason = v->exit.reason;
		v->stats.exits[reason < KVMX_REASONS ? reason : KVMX_REASONS - 1]++;
		if (t && v->exit.count && kvmx_native(t, &v->exit, (uint8_t *)v->run)) {
			v->stats.native++;
			kvmx_trace_add(v, entered, left, KVMX_IN_C);
			continue;
		}
		kvmx_trace_add(v, entered, left, KVMX_TO_CALLER);
		fill_ones(v);
		if (complete_only)
			set_immediate(v, 0);
		return (int)(reason & INT32_MAX);
	}
	return -ERESTART;
}

static void allow_kick(void)
{
	/* Python threads may have blocked everything; a blocked kick would wait for the next exit. */
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

int kvmx_vcpu_run(struct kvmx_vcpu *v, struct kvmx_table *t, int complete_only)
{
	int ret = enter(v, RUNNING);
	if (ret)
		return ret;
	if (v->runner != v->tid) {
		allow_kick();
		v->runner = v->tid;
	}
	v->exit.count = 0;
	ret = run_loop(v, t, complete_only);
	leave(v);
	return ret;
}

int kvmx_vcpu_kick(struct kvmx_vcpu *v)
{
	/* Asked twice: close() must not wait for later kickers. */
	if (__atomic_load_n(&v->state, __ATOMIC_SEQ_CST) == CLOSED)
		return 0;
	__atomic_fetch_add(&v->kickers, 1, __ATOMIC_SEQ_CST);
	uint32_t state = __atomic_load_n(&v->state, __ATOMIC_SEQ_CST);
	/* Who finds kicked set leaves the rest to who set it: a storm of kicks is one signal, or the runner
	 * might never get past its handler. */
	if (state != CLOSED && !__atomic_exchange_n(&v->kicked, 1, __ATOMIC_SEQ_CST)) {
		set_immediate(v, 1);
		int32_t tid = __atomic_load_n(&v->tid, __ATOMIC_SEQ_CST);
		/* ESRCH: the thread left meanwhile; its next run sees immediate_exit. */
		if (tid && __atomic_load_n(&v->state, __ATOMIC_SEQ_CST) == RUNNING)
			syscall(SYS_tgkill, getpid(), tid, SIGRTMIN);
	}
	__atomic_fetch_sub(&v->kickers, 1, __ATOMIC_SEQ_CST);
	return 0;
}

int kvmx_vcpu_user(struct kvmx_vcpu *v)
{
	return __atomic_load_n(&v->tid, __ATOMIC_SEQ_CST);
}
