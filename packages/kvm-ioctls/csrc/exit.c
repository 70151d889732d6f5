/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * From the run page to a checked record, and the table that answers some of the records.
 */
#define _GNU_SOURCE
#include "core.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- decoding ---- */
static uint64_t load_le(const uint8_t *p, uint32_t size)
{
	uint64_t value = 0;
	memcpy(&value, p, size); /* x86-64: little-endian */
	return value;
}

static uint64_t ones(uint32_t size)
{
	return size >= 8 ? UINT64_MAX : (1ull << (size * 8)) - 1;
}

static int decode_io(const struct kx_run *run, uint64_t page_size, struct kvmx_exit *e)
{
	e->is_write = run->io.direction == 1;
	e->size = run->io.size;
	e->count = run->io.count;
	e->addr = run->io.port;
	e->data_offset = run->io.data_offset;
	if (run->io.direction > 1 || (e->size != 1 && e->size != 2 && e->size != 4) || !e->count)
		return -EPROTO;
	uint64_t bytes = (uint64_t)e->size * e->count; /* < 2^35: cannot wrap */
	if (bytes > page_size || e->data_offset > page_size - bytes)
		return -EPROTO;
	return 0;
}

static int decode_mmio(const struct kx_run *run, struct kvmx_exit *e)
{
	e->is_mmio = 1;
	e->is_write = run->mmio.is_write != 0;
	e->count = 1;
	e->addr = run->mmio.phys_addr;
	e->data_offset = offsetof(struct kx_run, mmio.data);
	if (!run->mmio.len || run->mmio.len > 8)
		return -EPROTO;
	e->size = (uint8_t)run->mmio.len;
	return 0;
}

static void words(struct kvmx_exit *e, const uint64_t *from, uint32_t n)
{
	memcpy(e->words + e->nwords, from, n * sizeof *from);
	e->nwords += n;
}

#define WORDS(e, ...) words(e, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / 8)

static void decode_hyperv(const struct kx_run *run, struct kvmx_exit *e)
{
	WORDS(e, run->hyperv.type);
	if (run->hyperv.type == KX_HYPERV_HCALL)
		WORDS(e, run->hyperv.u.hcall.input, run->hyperv.u.hcall.params[0], run->hyperv.u.hcall.params[1]);
	else if (run->hyperv.type == KX_HYPERV_SYNIC)
		WORDS(e, run->hyperv.u.synic.msr, run->hyperv.u.synic.control, run->hyperv.u.synic.evt_page,
		      run->hyperv.u.synic.msg_page);
	else
		WORDS(e, run->hyperv.u.syndbg.msr, run->hyperv.u.syndbg.control, run->hyperv.u.syndbg.status,
		      run->hyperv.u.syndbg.send_page, run->hyperv.u.syndbg.recv_page, run->hyperv.u.syndbg.pending_page);
}

/* Exits of one architecture or of one guest interface; the rest come as they are. */
static void decode_arch(const struct kx_run *run, struct kvmx_exit *e)
{
	switch (e->reason) {
	case KX_EXIT_HYPERV: decode_hyperv(run, e); break;
	case KX_EXIT_XEN:
		WORDS(e, run->xen.type, run->xen.u.hcall.longmode, run->xen.u.hcall.cpl, run->xen.u.hcall.input);
		words(e, run->xen.u.hcall.params, 6);
		break;
	case KX_EXIT_ARM_NISV:
	case KX_EXIT_ARM_LDST64B: WORDS(e, run->arm_nisv.esr_iss, run->arm_nisv.fault_ipa); break;
	case KX_EXIT_ARM_SEA: WORDS(e, run->arm_sea.flags, run->arm_sea.esr, run->arm_sea.gva, run->arm_sea.gpa); break;
	case KX_EXIT_RISCV_SBI:
		WORDS(e, run->riscv_sbi.extension_id, run->riscv_sbi.function_id);
		words(e, run->riscv_sbi.args, 6);
		break;
	case KX_EXIT_RISCV_CSR: WORDS(e, run->riscv_csr.csr_num, run->riscv_csr.new_value, run->riscv_csr.write_mask); break;
	case KX_EXIT_TDX:
		WORDS(e, run->tdx.flags, run->tdx.nr);
		words(e, run->tdx.unknown.data, 5);
		break;
	case KX_EXIT_SNP_REQ_CERTS: WORDS(e, run->snp_req_certs.gpa, run->snp_req_certs.npages); break;
	default: words(e, (const uint64_t *)(const void *)run->padding, KVMX_WORDS); break;
	}
}

static void decode_other(const struct kx_run *run, struct kvmx_exit *e)
{
	switch (e->reason) {
	case KX_EXIT_UNKNOWN: WORDS(e, run->hw.hardware_exit_reason); break;
	case KX_EXIT_EXCEPTION: WORDS(e, run->ex.exception, run->ex.error_code); break;
	case KX_EXIT_HYPERCALL:
		WORDS(e, run->hypercall.nr, run->hypercall.flags);
		words(e, run->hypercall.args, 6);
		break;
	case KX_EXIT_DEBUG:
		/* x86: exception, pc, dr6, dr7; arm64: hsr, far. The first word is two halves there. */
		WORDS(e, (uint64_t)run->debug.arm64.hsr_high << 32 | run->debug.arm64.hsr, run->debug.arch.pc,
		      run->debug.arch.dr6, run->debug.arch.dr7);
		break;
	case KX_EXIT_FAIL_ENTRY: WORDS(e, run->fail_entry.hardware_entry_failure_reason, run->fail_entry.cpu); break;
	case KX_EXIT_TPR_ACCESS: WORDS(e, run->tpr_access.rip, run->tpr_access.is_write); break;
	case KX_EXIT_INTERNAL_ERROR:
		WORDS(e, run->internal.suberror, run->internal.ndata > 16 ? 16 : run->internal.ndata);
		words(e, run->internal.data, 16);
		break;
	case KX_EXIT_SYSTEM_EVENT:
		WORDS(e, run->system_event.type, run->system_event.ndata > 16 ? 16 : run->system_event.ndata);
		words(e, run->system_event.data, 16);
		break;
	case KX_EXIT_IOAPIC_EOI: WORDS(e, run->eoi.vector); break;
	case KX_EXIT_X86_RDMSR:
	case KX_EXIT_X86_WRMSR: WORDS(e, run->msr.index, run->msr.reason, run->msr.data); break;
	case KX_EXIT_NOTIFY: WORDS(e, run->notify.flags); break;
	case KX_EXIT_MEMORY_FAULT: WORDS(e, run->memory_fault.flags, run->memory_fault.gpa, run->memory_fault.size); break;
	case KX_EXIT_HLT:
	case KX_EXIT_IRQ_WINDOW_OPEN:
	case KX_EXIT_SHUTDOWN:
	case KX_EXIT_INTR:
	case KX_EXIT_SET_TPR:
	case KX_EXIT_NMI:
	case KX_EXIT_DIRTY_RING_FULL:
	case KX_EXIT_AP_RESET_HOLD:
	case KX_EXIT_X86_BUS_LOCK: break;
	default: decode_arch(run, e); break;
	}
}

int kvmx_decode(const uint8_t *page, uint64_t page_size, struct kvmx_exit *ret)
{
	if (page_size < sizeof(struct kx_run))
		return -EPROTO;
	/* SAFETY: the caller's page is page_size bytes, checked to hold a kx_run; 8-byte aligned as mmap
	 * or malloc give it. The kernel writes it only inside KVM_RUN, which is over. */
	const struct kx_run *run = (const struct kx_run *)(const void *)page;
	memset(ret, 0, offsetof(struct kvmx_exit, words));
	ret->reason = run->exit_reason;
	int err = 0;
	if (ret->reason == KX_EXIT_IO)
		err = decode_io(run, page_size, ret);
	else if (ret->reason == KX_EXIT_MMIO)
		err = decode_mmio(run, ret);
	else
		decode_other(run, ret);
	if (err || !ret->count)
		return err;
	/* SAFETY: data_offset + size * count <= page_size was checked (MMIO: 8 bytes inside kx_run). */
	ret->value = ret->is_write ? load_le(page + ret->data_offset, ret->size) : ones(ret->size);
	return 0;
}

/* ---- answers ---- */
int kvmx_reply(uint8_t *page, uint64_t first, uint64_t second)
{
	/* SAFETY: the caller's page holds a kx_run, 8-byte aligned; only members of the union are written. */
	struct kx_run *run = (struct kx_run *)(void *)page;
	switch (run->exit_reason) {
	case KX_EXIT_HYPERCALL: run->hypercall.ret = first; return 0;
	case KX_EXIT_XEN: run->xen.u.hcall.result = first; return 0;
	case KX_EXIT_RISCV_SBI:
		run->riscv_sbi.ret[0] = first;
		run->riscv_sbi.ret[1] = second;
		return 0;
	case KX_EXIT_RISCV_CSR: run->riscv_csr.ret_value = first; return 0;
	case KX_EXIT_SNP_REQ_CERTS: run->snp_req_certs.ret = first; return 0;
	case KX_EXIT_TDX:
		run->tdx.unknown.ret = first;
		run->tdx.unknown.data[0] = second;
		return 0;
	case KX_EXIT_HYPERV:
		if (run->hyperv.type == KX_HYPERV_HCALL)
			run->hyperv.u.hcall.result = first;
		else if (run->hyperv.type == KX_HYPERV_SYNDBG)
			run->hyperv.u.syndbg.status = first;
		else
			return -ENODATA;
		return 0;
	default: return -ENODATA;
	}
}

/* ---- native exits ---- */
int kvmx_table_check(const struct kvmx_table *t)
{
	if (t->abi != ((uint64_t)KVMX_ABI << 32 | sizeof *t))
		return -EPROTO;
	for (int space = 0; space < 2; space++) {
		const struct kvmx_range *r = space ? t->mmio : t->pio;
		uint32_t n = space ? t->nmmio : t->npio;
		for (uint32_t i = 0; i < n; i++)
			if (r[i].last < r[i].base || (i && r[i].base <= r[i - 1].last))
				return -EINVAL;
	}
	return 0;
}

static struct kvmx_range *find(struct kvmx_range *ranges, uint32_t n, uint64_t addr, uint64_t last)
{
	uint32_t lo = 0, hi = n; /* first range whose last >= addr */
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (ranges[mid].last < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == n || ranges[lo].base > addr || last < addr || ranges[lo].last < last)
		return NULL;
	return &ranges[lo];
}

static void native_read(const struct kvmx_range *r, const struct kvmx_exit *e, uint8_t *page)
{
	uint64_t value = r->read_kind == KVMX_CONSTANT ? r->constant : kvmx_cell_load(r->read_cell);
	for (uint32_t i = 0; i < e->count; i++)
		/* SAFETY: kvmx_decode bounded data_offset + count * size by the page. */
		memcpy(page + e->data_offset + (uint64_t)i * e->size, &value, e->size);
}

/* 1, or 0 when it does not fit: then Python answers, and nothing was done. */
static int native_write(struct kvmx_range *r, const struct kvmx_exit *e, const uint8_t *page)
{
	uint64_t n = e->count;
	if (r->write_kind == KVMX_RING)
		return kvmx_ring_put(r->ring, e, page);
	if (r->write_kind == KVMX_LATCH)
		kvmx_cell_store(r->write_cell, load_le(page + e->data_offset + (n - 1) * e->size, e->size));
	else if (r->write_kind == KVMX_COUNTER)
		__atomic_fetch_add(r->write_cell, n, __ATOMIC_RELAXED);
	else if (r->write_kind == KVMX_EVENTFD && write(r->fd, &n, sizeof n) < 0)
		return 1; /* EAGAIN: the counter is full, so its reader is already awake */
	return 1;
}

int kvmx_native(struct kvmx_table *t, const struct kvmx_exit *e, uint8_t *page)
{
	struct kvmx_range *ranges = e->is_mmio ? t->mmio : t->pio;
	struct kvmx_range *r = find(ranges, e->is_mmio ? t->nmmio : t->npio, e->addr, e->addr + e->size - 1);
	if (!r || (e->is_write ? r->write_kind : r->read_kind) == KVMX_NONE)
		return 0;
	if (!e->is_write)
		native_read(r, e, page);
	else if (!native_write(r, e, page))
		return 0;
	__atomic_fetch_add(&r->hits, 1, __ATOMIC_RELAXED);
	return 1;
}

uint64_t kvmx_cell_load(const uint64_t *cell)
{
	return __atomic_load_n(cell, __ATOMIC_ACQUIRE);
}

void kvmx_cell_store(uint64_t *cell, uint64_t value)
{
	__atomic_store_n(cell, value, __ATOMIC_RELEASE);
}
