/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * What the VMM tells a vCPU that has left the guest: the answer of a read, a call, a register.
 */
#define _GNU_SOURCE
#include "vcpu.h"

#include <string.h>

int kvmx_vcpu_set_value(struct kvmx_vcpu *v, uint64_t value)
{
	int ret = enter(v, BUSY);
	if (ret)
		return ret;
	const struct kvmx_exit *e = &v->exit;
	ret = e->count && !e->is_write ? 0 : -ENODATA;
	for (uint32_t i = 0; !ret && i < e->count; i++)
		/* SAFETY: bounded by kvmx_decode; size <= 8. */
		memcpy((uint8_t *)v->run + e->data_offset + (uint64_t)i * e->size, &value, e->size);
	leave(v);
	return ret;
}

static int io_bytes(struct kvmx_vcpu *v, uint64_t len, int write)
{
	const struct kvmx_exit *e = &v->exit;
	if (!e->count || e->is_write != write)
		return -ENODATA;
	return len == (uint64_t)e->size * e->count ? 0 : -EMSGSIZE;
}

int kvmx_vcpu_set_data(struct kvmx_vcpu *v, const uint8_t *data, uint64_t len)
{
	int ret = enter(v, BUSY);
	if (ret)
		return ret;
	ret = io_bytes(v, len, 0);
	if (!ret) /* SAFETY: len equals count * size, which kvmx_decode bounded. */
		memcpy((uint8_t *)v->run + v->exit.data_offset, data, len);
	leave(v);
	return ret;
}

int kvmx_vcpu_get_data(struct kvmx_vcpu *v, uint8_t *data, uint64_t len)
{
	int ret = enter(v, BUSY);
	if (ret)
		return ret;
	ret = io_bytes(v, len, 1);
	if (!ret) /* SAFETY: as in kvmx_vcpu_set_data. */
		memcpy(data, (uint8_t *)v->run + v->exit.data_offset, len);
	leave(v);
	return ret;
}

int kvmx_vcpu_reply_msr(struct kvmx_vcpu *v, int error, uint64_t data)
{
	int ret = enter(v, BUSY);
	if (ret)
		return ret;
	int asked = v->exit.reason == KX_EXIT_X86_RDMSR || v->exit.reason == KX_EXIT_X86_WRMSR;
	if (asked) {
		v->run->msr.error = error ? 1 : 0;
		v->run->msr.data = data;
	}
	leave(v);
	return asked ? 0 : -ENODATA;
}

int kvmx_vcpu_reply(struct kvmx_vcpu *v, uint64_t first, uint64_t second)
{
	int ret = enter(v, BUSY);
	if (ret)
		return ret;
	/* The page keeps its reason until the next run, which clears it; a failed run leaves none. */
	ret = v->exit.reason == v->run->exit_reason ? kvmx_reply((uint8_t *)v->run, first, second) : -ENODATA;
	leave(v);
	return ret;
}

int kvmx_vcpu_request_window(struct kvmx_vcpu *v, int on)
{
	int ret = enter(v, BUSY);
	if (ret)
		return ret;
	v->run->request_interrupt_window = on ? 1 : 0;
	leave(v);
	return 0;
}

int kvmx_vcpu_ready(struct kvmx_vcpu *v)
{
	int ret = enter(v, BUSY);
	if (ret)
		return ret;
	ret = v->run->ready_for_interrupt_injection | v->run->if_flag << 1 | (v->run->flags & 0x7fff) << 16;
	leave(v);
	return ret;
}

int kvmx_vcpu_sync_masks(struct kvmx_vcpu *v, uint64_t valid, uint64_t dirty)
{
	int ret = enter(v, BUSY);
	if (ret)
		return ret;
	v->run->kvm_valid_regs = valid;
	v->run->kvm_dirty_regs = dirty;
	leave(v);
	return 0;
}

int kvmx_vcpu_sync_copy(struct kvmx_vcpu *v, int write, uint32_t offset, uint8_t *data, uint32_t size)
{
	if (size > sizeof v->run->s || offset > sizeof v->run->s - size)
		return -EINVAL;
	int ret = enter(v, BUSY);
	if (ret)
		return ret;
	/* SAFETY: offset + size was bounded by the area; the caller's data has size bytes. */
	if (write)
		memcpy(v->run->s + offset, data, size);
	else
		memcpy(data, v->run->s + offset, size);
	leave(v);
	return 0;
}

struct kvmx_exit *kvmx_vcpu_exit(struct kvmx_vcpu *v)
{
	return &v->exit;
}

struct kvmx_stats *kvmx_vcpu_stats(struct kvmx_vcpu *v)
{
	return &v->stats;
}
