/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * The /dev/kvm ABI of x86-64, arm64 and riscv64 as this package understands it.
 *
 * Written out here, and not taken from <linux/kvm.h>, because the header of the machine that builds
 * is often older than the kernel that runs. Names carry the prefix kx_/KX_ so that a test can include
 * both headers in one file and compare them (tests/test_abi.py).
 *
 * Every type has a fixed width, so all three architectures are compiled, and proven, on any host. What only
 * one of them has lies in a header of its own.
 *
 * The X-macro lists are the single table of structs, fields and ioctls: the layout that Python
 * checks its codecs against, the comparison with the kernels' headers and the tests all expand them.
 */
#ifndef KVM_ABI_H
#define KVM_ABI_H

#include <stddef.h>
#include <stdint.h>

#include "kvm_abi_arm64.h"
#include "kvm_abi_riscv64.h"
#include "kvm_abi_x86.h"

#define KX_API_VERSION 12

/* asm-generic/ioctl.h encoding: dir:2 size:14 type:8 nr:8. */
#define KX_IOC(dir, nr, size) (((uint32_t)(dir) << 30) | ((uint32_t)(size) << 16) | (0xAEu << 8) | (uint32_t)(nr))
#define KX_IO(nr) KX_IOC(0, nr, 0)
#define KX_IOW(nr, type) KX_IOC(1, nr, sizeof(type))
#define KX_IOR(nr, type) KX_IOC(2, nr, sizeof(type))
#define KX_IOWR(nr, type) KX_IOC(3, nr, sizeof(type))

/* ---- system and VM ---- */
struct kx_userspace_memory_region {
	uint32_t slot, flags;
	uint64_t guest_phys_addr, memory_size, userspace_addr;
};
struct kx_userspace_memory_region2 {
	uint32_t slot, flags;
	uint64_t guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset;
	uint32_t guest_memfd, pad1;
	uint64_t pad2[14];
};
struct kx_irq_level { uint32_t irq, level; };
struct kx_irqchip { uint32_t chip_id, pad; uint8_t chip[512]; };
struct kx_pit_config { uint32_t flags, pad[15]; };
struct kx_clock_data { uint64_t clock; uint32_t flags, pad0; uint64_t realtime, host_tsc; uint32_t pad[4]; };
struct kx_irqfd { uint32_t fd, gsi, flags, resamplefd; uint8_t pad[16]; };
struct kx_ioeventfd { uint64_t datamatch, addr; uint32_t len; int32_t fd; uint32_t flags; uint8_t pad[36]; };
struct kx_irq_routing_irqchip { uint32_t irqchip, pin; };
struct kx_irq_routing_msi { uint32_t address_lo, address_hi, data, devid; };
struct kx_irq_routing_hv_sint { uint32_t vcpu, sint; };
struct kx_irq_routing_xen_evtchn { uint32_t port, vcpu, priority; };
struct kx_irq_routing_entry {
	uint32_t gsi, type, flags, pad;
	union {
		struct kx_irq_routing_irqchip irqchip;
		struct kx_irq_routing_msi msi;
		struct kx_irq_routing_hv_sint hv_sint;
		struct kx_irq_routing_xen_evtchn xen_evtchn;
		uint32_t pad[8];
	} u;
};
struct kx_irq_routing { uint32_t nr, flags; };
struct kx_msi { uint32_t address_lo, address_hi, data, flags, devid; uint8_t pad[12]; };
struct kx_dirty_log { uint32_t slot, padding1; uint64_t dirty_bitmap; };
struct kx_clear_dirty_log { uint32_t slot, num_pages; uint64_t first_page, dirty_bitmap; };
struct kx_enable_cap { uint32_t cap, flags; uint64_t args[4]; uint8_t pad[64]; };
struct kx_create_device { uint32_t type, fd, flags; };
struct kx_device_attr { uint32_t flags, group; uint64_t attr, addr; };
struct kx_coalesced_mmio_zone { uint64_t addr; uint32_t size, pio; };
struct kx_coalesced_mmio { uint64_t phys_addr; uint32_t len, pio; uint8_t data[8]; };
struct kx_coalesced_mmio_ring { uint32_t first, last; };
struct kx_one_reg { uint64_t id, addr; };
struct kx_reg_list { uint64_t n; };
struct kx_memory_attributes { uint64_t address, size, attributes, flags; };
struct kx_create_guest_memfd { uint64_t size, flags, reserved[6]; };
struct kx_pre_fault_memory { uint64_t gpa, size, flags, padding[5]; };
struct kx_enc_region { uint64_t addr, size; };
struct kx_dirty_gfn { uint32_t flags, slot; uint64_t offset; };
struct kx_stats_header { uint32_t flags, name_size, num_desc, id_offset, desc_offset, data_offset; };
struct kx_stats_desc { uint32_t flags; int16_t exponent; uint16_t size; uint32_t offset, bucket_size; };
struct kx_signal_mask { uint32_t len; };
struct kx_tpr_access_ctl { uint32_t enabled, flags, reserved[8]; };
struct kx_vapic_addr { uint64_t vapic_addr; };

/* ---- vCPU state ---- */
struct kx_mp_state { uint32_t mp_state; };
struct kx_translation { uint64_t linear_address, physical_address; uint8_t valid, writeable, usermode, pad[5]; };
struct kx_interrupt { uint32_t irq; };

/* ---- the shared run page ---- */
struct kx_run {
	uint8_t request_interrupt_window, immediate_exit, padding1[6];
	uint32_t exit_reason;
	uint8_t ready_for_interrupt_injection, if_flag;
	uint16_t flags;
	uint64_t cr8, apic_base;
	union {
		struct { uint64_t hardware_exit_reason; } hw;
		struct { uint64_t hardware_entry_failure_reason; uint32_t cpu; } fail_entry;
		struct { uint32_t exception, error_code; } ex;
		struct { uint8_t direction, size; uint16_t port; uint32_t count; uint64_t data_offset; } io;
		struct {
			union {
				struct { uint32_t exception, pad; uint64_t pc, dr6, dr7; } arch; /* x86 */
				struct kx_arm64_debug_exit arm64;
			};
		} debug;
		struct { uint64_t phys_addr; uint8_t data[8]; uint32_t len; uint8_t is_write; } mmio;
		struct { uint64_t nr, args[6], ret; union { uint32_t longmode; uint64_t flags; }; } hypercall;
		struct { uint64_t rip; uint32_t is_write, pad; } tpr_access;
		struct { uint32_t suberror, ndata; uint64_t data[16]; } internal;
		struct { uint32_t suberror, ndata; uint64_t flags; uint8_t insn_size, insn_bytes[15]; } emulation_failure;
		struct { uint32_t type, ndata; uint64_t data[16]; } system_event;
		struct { uint8_t vector; } eoi;
		struct { uint8_t error, pad[7]; uint32_t reason, index; uint64_t data; } msr;
		struct { uint32_t flags; } notify;
		struct { uint64_t flags, gpa, size; } memory_fault; /* Linux 6.8 */
		struct {
			uint32_t type, pad1;
			union {
				struct { uint32_t msr, pad2; uint64_t control, evt_page, msg_page; } synic;
				struct { uint64_t input, result, params[2]; } hcall;
				struct { uint32_t msr, pad2; uint64_t control, status, send_page, recv_page, pending_page; } syndbg;
			} u;
		} hyperv;
		struct {
			uint32_t type;
			union { struct { uint32_t longmode, cpl; uint64_t input, result, params[6]; } hcall; } u;
		} xen;
		struct { uint64_t esr_iss, fault_ipa; } arm_nisv; /* ARM_LDST64B too */
		struct { uint64_t extension_id, function_id, args[6], ret[2]; } riscv_sbi;
		struct { uint64_t csr_num, new_value, write_mask, ret_value; } riscv_csr;
		struct { uint64_t flags, nr; struct { uint64_t ret, data[5]; } unknown; } tdx;
		struct { uint64_t flags, esr, gva, gpa; } arm_sea;
		struct { uint64_t gpa, npages, ret; } snp_req_certs;
		uint8_t padding[256];
	};
	uint64_t kvm_valid_regs, kvm_dirty_regs;
	uint8_t s[2048];
};

enum kx_exit_reason {
	KX_EXIT_UNKNOWN = 0, KX_EXIT_EXCEPTION = 1, KX_EXIT_IO = 2, KX_EXIT_HYPERCALL = 3, KX_EXIT_DEBUG = 4,
	KX_EXIT_HLT = 5, KX_EXIT_MMIO = 6, KX_EXIT_IRQ_WINDOW_OPEN = 7, KX_EXIT_SHUTDOWN = 8, KX_EXIT_FAIL_ENTRY = 9,
	KX_EXIT_INTR = 10, KX_EXIT_SET_TPR = 11, KX_EXIT_TPR_ACCESS = 12, KX_EXIT_NMI = 16,
	KX_EXIT_INTERNAL_ERROR = 17,
	KX_EXIT_SYSTEM_EVENT = 24, KX_EXIT_IOAPIC_EOI = 26, KX_EXIT_HYPERV = 27, KX_EXIT_ARM_NISV = 28,
	KX_EXIT_X86_RDMSR = 29, KX_EXIT_X86_WRMSR = 30, KX_EXIT_DIRTY_RING_FULL = 31, KX_EXIT_AP_RESET_HOLD = 32,
	KX_EXIT_X86_BUS_LOCK = 33, KX_EXIT_XEN = 34, KX_EXIT_RISCV_SBI = 35, KX_EXIT_RISCV_CSR = 36, KX_EXIT_NOTIFY = 37,
	KX_EXIT_MEMORY_FAULT = 39, KX_EXIT_TDX = 40, KX_EXIT_ARM_SEA = 41,
	KX_EXIT_ARM_LDST64B = 42, KX_EXIT_SNP_REQ_CERTS = 43,
};

enum { KX_HYPERV_SYNIC = 1, KX_HYPERV_HCALL = 2, KX_HYPERV_SYNDBG = 3 };

/* S(struct, size) and F(struct, field, offset): both are written down, so a changed compiler or edit cannot
 * move one unnoticed. */
#define KX_SIZES(S) \
	S(userspace_memory_region, 32) S(userspace_memory_region2, 160) S(irq_level, 8) S(irqchip, 520) \
	S(pit_config, 64) S(clock_data, 48) S(irqfd, 32) S(ioeventfd, 64) S(irq_routing_irqchip, 8) \
	S(irq_routing_msi, 16) S(irq_routing_entry, 48) S(irq_routing, 8) S(msi, 32) S(dirty_log, 16) \
	S(clear_dirty_log, 24) S(enable_cap, 104) S(create_device, 12) S(device_attr, 24) S(coalesced_mmio_zone, 16) \
	S(mp_state, 4) S(translation, 24) S(interrupt, 4) S(run, 2352) S(coalesced_mmio, 24) S(coalesced_mmio_ring, 8) \
	S(irq_routing_hv_sint, 8) S(irq_routing_xen_evtchn, 12) S(signal_mask, 4) S(one_reg, 16) S(reg_list, 8) \
	S(memory_attributes, 32) S(create_guest_memfd, 64) S(pre_fault_memory, 64) S(dirty_gfn, 16) S(stats_header, 24) \
	S(stats_desc, 16) S(enc_region, 16) S(tpr_access_ctl, 40) S(vapic_addr, 8)

#define KX_FIELDS(F) \
	F(userspace_memory_region, slot, 0) F(userspace_memory_region, flags, 4) \
	F(userspace_memory_region, guest_phys_addr, 8) F(userspace_memory_region, memory_size, 16) \
	F(userspace_memory_region, userspace_addr, 24) F(userspace_memory_region2, slot, 0) \
	F(userspace_memory_region2, flags, 4) F(userspace_memory_region2, guest_phys_addr, 8) \
	F(userspace_memory_region2, memory_size, 16) F(userspace_memory_region2, userspace_addr, 24) \
	F(userspace_memory_region2, guest_memfd_offset, 32) F(userspace_memory_region2, guest_memfd, 40) \
	F(irq_level, irq, 0) F(irq_level, level, 4) F(irqchip, chip_id, 0) F(irqchip, chip, 8) F(pit_config, flags, 0) \
	F(clock_data, clock, 0) F(clock_data, flags, 8) F(clock_data, realtime, 16) F(clock_data, host_tsc, 24) \
	F(irqfd, fd, 0) F(irqfd, gsi, 4) F(irqfd, flags, 8) F(irqfd, resamplefd, 12) F(ioeventfd, datamatch, 0) \
	F(ioeventfd, addr, 8) F(ioeventfd, len, 16) F(ioeventfd, fd, 20) F(ioeventfd, flags, 24) \
	F(irq_routing_irqchip, irqchip, 0) F(irq_routing_irqchip, pin, 4) F(irq_routing_msi, address_lo, 0) \
	F(irq_routing_msi, address_hi, 4) F(irq_routing_msi, data, 8) F(irq_routing_msi, devid, 12) \
	F(irq_routing_entry, gsi, 0) F(irq_routing_entry, type, 4) F(irq_routing_entry, flags, 8) \
	F(irq_routing_entry, u, 16) F(irq_routing, nr, 0) F(irq_routing, flags, 4) F(msi, address_lo, 0) \
	F(msi, address_hi, 4) F(msi, data, 8) F(msi, flags, 12) F(msi, devid, 16) F(dirty_log, slot, 0) \
	F(dirty_log, dirty_bitmap, 8) F(clear_dirty_log, slot, 0) F(clear_dirty_log, num_pages, 4) \
	F(clear_dirty_log, first_page, 8) F(clear_dirty_log, dirty_bitmap, 16) F(enable_cap, cap, 0) \
	F(enable_cap, flags, 4) F(enable_cap, args, 8) F(create_device, type, 0) F(create_device, fd, 4) \
	F(create_device, flags, 8) F(device_attr, flags, 0) F(device_attr, group, 4) F(device_attr, attr, 8) \
	F(device_attr, addr, 16) F(coalesced_mmio_zone, addr, 0) F(coalesced_mmio_zone, size, 8) \
	F(coalesced_mmio_zone, pio, 12) F(mp_state, mp_state, 0) F(translation, linear_address, 0) \
	F(translation, physical_address, 8) F(translation, valid, 16) F(translation, writeable, 17) \
	F(translation, usermode, 18) F(interrupt, irq, 0) F(run, request_interrupt_window, 0) F(run, immediate_exit, 1) \
	F(run, exit_reason, 8) F(run, ready_for_interrupt_injection, 12) F(run, if_flag, 13) F(run, flags, 14) \
	F(run, cr8, 16) F(run, apic_base, 24) F(run, hw.hardware_exit_reason, 32) \
	F(run, fail_entry.hardware_entry_failure_reason, 32) F(run, fail_entry.cpu, 40) F(run, ex.exception, 32) \
	F(run, ex.error_code, 36) F(run, io.direction, 32) F(run, io.size, 33) F(run, io.port, 34) F(run, io.count, 36) \
	F(run, io.data_offset, 40) F(run, mmio.phys_addr, 32) F(run, mmio.data, 40) F(run, mmio.len, 48) \
	F(run, mmio.is_write, 52) F(run, hypercall.nr, 32) F(run, hypercall.args, 40) F(run, hypercall.ret, 88) \
	F(run, tpr_access.rip, 32) F(run, tpr_access.is_write, 40) F(run, internal.suberror, 32) \
	F(run, internal.ndata, 36) F(run, internal.data, 40) F(run, emulation_failure.flags, 40) \
	F(run, emulation_failure.insn_size, 48) F(run, emulation_failure.insn_bytes, 49) F(run, system_event.type, 32) \
	F(run, system_event.ndata, 36) F(run, system_event.data, 40) F(run, eoi.vector, 32) F(run, msr.error, 32) \
	F(run, msr.reason, 40) F(run, msr.index, 44) F(run, msr.data, 48) F(run, notify.flags, 32) \
	F(run, kvm_valid_regs, 288) F(run, kvm_dirty_regs, 296) F(run, s, 304) F(coalesced_mmio, phys_addr, 0) \
	F(coalesced_mmio, len, 8) F(coalesced_mmio, pio, 12) F(coalesced_mmio, data, 16) \
	F(coalesced_mmio_ring, first, 0) F(coalesced_mmio_ring, last, 4) F(irq_routing_hv_sint, vcpu, 0) \
	F(irq_routing_hv_sint, sint, 4) F(irq_routing_xen_evtchn, port, 0) F(irq_routing_xen_evtchn, vcpu, 4) \
	F(irq_routing_xen_evtchn, priority, 8) F(signal_mask, len, 0) F(one_reg, id, 0) F(one_reg, addr, 8) \
	F(reg_list, n, 0) F(memory_attributes, address, 0) F(memory_attributes, size, 8) \
	F(memory_attributes, attributes, 16) F(memory_attributes, flags, 24) F(create_guest_memfd, size, 0) \
	F(create_guest_memfd, flags, 8) F(pre_fault_memory, gpa, 0) F(pre_fault_memory, size, 8) \
	F(pre_fault_memory, flags, 16) F(dirty_gfn, flags, 0) F(dirty_gfn, slot, 4) F(dirty_gfn, offset, 8) \
	F(stats_header, flags, 0) F(stats_header, name_size, 4) F(stats_header, num_desc, 8) \
	F(stats_header, id_offset, 12) F(stats_header, desc_offset, 16) F(stats_header, data_offset, 20) \
	F(stats_desc, flags, 0) F(stats_desc, exponent, 4) F(stats_desc, size, 6) F(stats_desc, offset, 8) \
	F(stats_desc, bucket_size, 12) F(enc_region, addr, 0) F(enc_region, size, 8) F(tpr_access_ctl, enabled, 0) \
	F(tpr_access_ctl, flags, 4) F(vapic_addr, vapic_addr, 0) F(run, hypercall.longmode, 96) \
	F(run, memory_fault.flags, 32) F(run, memory_fault.gpa, 40) F(run, memory_fault.size, 48) \
	 \
	 \
	 F(run, hyperv.type, 32) F(run, hyperv.u.synic.msr, 40) \
	F(run, hyperv.u.synic.control, 48) F(run, hyperv.u.synic.evt_page, 56) F(run, hyperv.u.synic.msg_page, 64) \
	F(run, hyperv.u.hcall.input, 40) F(run, hyperv.u.hcall.result, 48) F(run, hyperv.u.hcall.params, 56) \
	F(run, hyperv.u.syndbg.msr, 40) F(run, hyperv.u.syndbg.control, 48) F(run, hyperv.u.syndbg.status, 56) \
	F(run, hyperv.u.syndbg.send_page, 64) F(run, hyperv.u.syndbg.recv_page, 72) \
	F(run, hyperv.u.syndbg.pending_page, 80) F(run, xen.type, 32) F(run, xen.u.hcall.longmode, 40) \
	F(run, xen.u.hcall.cpl, 44) F(run, xen.u.hcall.input, 48) F(run, xen.u.hcall.result, 56) \
	F(run, xen.u.hcall.params, 64) F(run, arm_nisv.esr_iss, 32) F(run, arm_nisv.fault_ipa, 40) \
	F(run, riscv_sbi.extension_id, 32) F(run, riscv_sbi.function_id, 40) F(run, riscv_sbi.args, 48) \
	F(run, riscv_sbi.ret, 96) F(run, riscv_csr.csr_num, 32) F(run, riscv_csr.new_value, 40) \
	F(run, riscv_csr.write_mask, 48) F(run, riscv_csr.ret_value, 56) F(run, tdx.flags, 32) F(run, tdx.nr, 40) \
	F(run, tdx.unknown.ret, 48) F(run, tdx.unknown.data, 56) F(run, arm_sea.flags, 32) F(run, arm_sea.esr, 40) \
	F(run, arm_sea.gva, 48) F(run, arm_sea.gpa, 56) F(run, snp_req_certs.gpa, 32) F(run, snp_req_certs.npages, 40) \
	F(run, snp_req_certs.ret, 48)

#define KX_IOCTLS(I) \
	I(GET_API_VERSION, KX_IO(0x00)) I(CREATE_VM, KX_IO(0x01)) I(CHECK_EXTENSION, KX_IO(0x03)) \
	I(GET_VCPU_MMAP_SIZE, KX_IO(0x04)) I(CREATE_VCPU, KX_IO(0x41)) \
	I(GET_DIRTY_LOG, KX_IOW(0x42, struct kx_dirty_log)) \
	I(SET_USER_MEMORY_REGION, KX_IOW(0x46, struct kx_userspace_memory_region)) \
	I(SET_USER_MEMORY_REGION2, KX_IOW(0x49, struct kx_userspace_memory_region2)) I(CREATE_IRQCHIP, KX_IO(0x60)) \
	I(IRQ_LINE, KX_IOW(0x61, struct kx_irq_level)) I(IRQ_LINE_STATUS, KX_IOWR(0x67, struct kx_irq_level)) \
	I(REGISTER_COALESCED_MMIO, KX_IOW(0x67, struct kx_coalesced_mmio_zone)) \
	I(UNREGISTER_COALESCED_MMIO, KX_IOW(0x68, struct kx_coalesced_mmio_zone)) \
	I(SET_GSI_ROUTING, KX_IOW(0x6a, struct kx_irq_routing)) I(IRQFD, KX_IOW(0x76, struct kx_irqfd)) \
	I(IOEVENTFD, KX_IOW(0x79, struct kx_ioeventfd)) I(RUN, KX_IO(0x80)) \
	I(INTERRUPT, KX_IOW(0x86, struct kx_interrupt)) I(GET_MP_STATE, KX_IOR(0x98, struct kx_mp_state)) \
	I(SET_MP_STATE, KX_IOW(0x99, struct kx_mp_state)) I(ENABLE_CAP, KX_IOW(0xa3, struct kx_enable_cap)) \
	I(SIGNAL_MSI, KX_IOW(0xa5, struct kx_msi)) I(CLEAR_DIRTY_LOG, KX_IOWR(0xc0, struct kx_clear_dirty_log)) \
	I(CREATE_DEVICE, KX_IOWR(0xe0, struct kx_create_device)) \
	I(SET_DEVICE_ATTR, KX_IOW(0xe1, struct kx_device_attr)) I(GET_DEVICE_ATTR, KX_IOW(0xe2, struct kx_device_attr)) \
	I(HAS_DEVICE_ATTR, KX_IOW(0xe3, struct kx_device_attr)) I(SET_SIGNAL_MASK, KX_IOW(0x8b, struct kx_signal_mask)) \
	I(GET_ONE_REG, KX_IOW(0xab, struct kx_one_reg)) I(SET_ONE_REG, KX_IOW(0xac, struct kx_one_reg)) \
	I(GET_REG_LIST, KX_IOWR(0xb0, struct kx_reg_list)) I(RESET_DIRTY_RINGS, KX_IO(0xc7)) \
	I(GET_STATS_FD, KX_IO(0xce)) I(SET_MEMORY_ATTRIBUTES, KX_IOW(0xd2, struct kx_memory_attributes)) \
	I(CREATE_GUEST_MEMFD, KX_IOWR(0xd4, struct kx_create_guest_memfd)) \
	I(PRE_FAULT_MEMORY, KX_IOWR(0xd5, struct kx_pre_fault_memory))

#define KX_ALL(list, X) KX_##list(X) KX_X86_##list(X) KX_ARM64_##list(X) KX_RISCV64_##list(X)

#define KX_ASSERT_SIZE(s, n) _Static_assert(sizeof(struct kx_##s) == (n), "size of kvm_" #s);
#define KX_ASSERT_OFFSET(s, f, n) _Static_assert(offsetof(struct kx_##s, f) == (n), "offset of kvm_" #s "." #f);
KX_ALL(SIZES, KX_ASSERT_SIZE)
KX_ALL(FIELDS, KX_ASSERT_OFFSET)

#define KX_IOCTL_CONSTANT(name, number) KX_##name = (int64_t)(number),
enum kx_ioctl { KX_ALL(IOCTLS, KX_IOCTL_CONSTANT) };

#endif
