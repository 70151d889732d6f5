/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * Every return of KVM_RUN with its times, in a buffer that its owner empties when it is full.
 */
#define _GNU_SOURCE
#include "vcpu.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t kvmx_trace_now(const struct kvmx_vcpu *v)
{
	if (!v->trace.records)
		return 0;
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void kvmx_trace_add(struct kvmx_vcpu *v, uint64_t entered, uint64_t left, enum kvmx_how how)
{
	struct kvmx_trace *t = &v->trace;
	if (t->n == t->room) /* not traced; a full one keeps the run loop from entering the guest */
		return;
	const struct kvmx_exit *e = &v->exit;
	struct kvmx_traced *r = &t->records[t->n++];
	*r = (struct kvmx_traced){.entered = entered, .left = left, .how = (uint8_t)how};
	if (how != KVMX_TO_CALLER && how != KVMX_IN_C)
		return;
	r->reason = e->reason;
	r->addr = e->count || !e->nwords ? e->addr : e->words[0];
	r->count = e->count;
	r->size = e->size;
	r->is_write = e->is_write;
}

int kvmx_vcpu_trace(struct kvmx_vcpu *v, uint32_t room)
{
	int ret = enter(v, BUSY);
	if (ret)
		return ret;
	struct kvmx_traced *records = room ? calloc(room, sizeof *records) : NULL;
	if (room && !records) {
		ret = -ENOMEM;
	} else {
		free(v->trace.records);
		v->trace = (struct kvmx_trace){.records = records, .room = room};
	}
	leave(v);
	return ret;
}

int kvmx_vcpu_trace_take(struct kvmx_vcpu *v, struct kvmx_traced *ret, uint32_t room)
{
	int rc = enter(v, BUSY);
	if (rc)
		return rc;
	if (v->trace.n > room) {
		rc = -EMSGSIZE;
	} else {
		rc = (int)v->trace.n;
		if (rc) /* SAFETY: n <= room, which is what `ret` takes; `records` has n of them. */
			memcpy(ret, v->trace.records, v->trace.n * sizeof *ret);
		v->trace.n = 0;
	}
	leave(v);
	return rc;
}
