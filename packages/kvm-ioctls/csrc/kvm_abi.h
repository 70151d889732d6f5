/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * The x86-64 /dev/kvm ABI as this package understands it.
 *
 * Written out here, and not taken from <linux/kvm.h>, because the header of the machine that builds
 * is often older than the kernel that runs. Names carry the prefix kx_/KX_ so that a test can include
 * both headers in one file and compare them (tests/test_abi.py).
 *
 * The X-macro lists at the end are the single table of fields and ioctls: the layout that Python
 * checks its codecs against, the comparison with the system header and the tests all expand them.
 */
#ifndef KVM_ABI_H
#define KVM_ABI_H

#include <stddef.h>
#include <stdint.h>

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
struct kx_pit_channel_state {
	uint32_t count;
	uint16_t latched_count;
	uint8_t count_latched, status_latched, status, read_state, write_state, write_latch;
	uint8_t rw_mode, mode, bcd, gate;
	int64_t count_load_time;
};
struct kx_pit_state2 { struct kx_pit_channel_state channels[3]; uint32_t flags, reserved[9]; };
struct kx_clock_data { uint64_t clock; uint32_t flags, pad0; uint64_t realtime, host_tsc; uint32_t pad[4]; };
struct kx_irqfd { uint32_t fd, gsi, flags, resamplefd; uint8_t pad[16]; };
struct kx_ioeventfd { uint64_t datamatch, addr; uint32_t len; int32_t fd; uint32_t flags; uint8_t pad[36]; };
struct kx_irq_routing_irqchip { uint32_t irqchip, pin; };
struct kx_irq_routing_msi { uint32_t address_lo, address_hi, data, devid; };
struct kx_irq_routing_entry {
	uint32_t gsi, type, flags, pad;
	union {
		struct kx_irq_routing_irqchip irqchip;
		struct kx_irq_routing_msi msi;
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

/* ---- vCPU state ---- */
struct kx_regs {
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags;
};
struct kx_segment {
	uint64_t base;
	uint32_t limit;
	uint16_t selector;
	uint8_t type, present, dpl, db, s, l, g, avl, unusable, padding;
};
struct kx_dtable { uint64_t base; uint16_t limit, padding[3]; };
struct kx_sregs {
	struct kx_segment cs, ds, es, fs, gs, ss, tr, ldt;
	struct kx_dtable gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base, interrupt_bitmap[4];
};
struct kx_sregs2 {
	struct kx_segment cs, ds, es, fs, gs, ss, tr, ldt;
	struct kx_dtable gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base, flags, pdptrs[4];
};
struct kx_fpu {
	uint8_t fpr[8][16];
	uint16_t fcw, fsw;
	uint8_t ftwx, pad1;
	uint16_t last_opcode;
	uint64_t last_ip, last_dp;
	uint8_t xmm[16][16];
	uint32_t mxcsr, pad2;
};
struct kx_lapic_state { uint8_t regs[1024]; };
struct kx_msr_entry { uint32_t index, reserved; uint64_t data; };
struct kx_msrs { uint32_t nmsrs, pad; };
struct kx_msr_list { uint32_t nmsrs; };
struct kx_cpuid_entry2 { uint32_t function, index, flags, eax, ebx, ecx, edx, padding[3]; };
struct kx_cpuid2 { uint32_t nent, padding; };
struct kx_xsave { uint32_t region[1024]; };
struct kx_xcr { uint32_t xcr, reserved; uint64_t value; };
struct kx_xcrs { uint32_t nr_xcrs, flags; struct kx_xcr xcrs[16]; uint64_t padding[16]; };
struct kx_debugregs { uint64_t db[4], dr6, dr7, flags, reserved[9]; };
struct kx_vcpu_events {
	struct { uint8_t injected, nr, has_error_code, pending; uint32_t error_code; } exception;
	struct { uint8_t injected, nr, soft, shadow; } interrupt;
	struct { uint8_t injected, pending, masked, pad; } nmi;
	uint32_t sipi_vector, flags;
	struct { uint8_t smm, pending, smm_inside_nmi, latched_init; } smi;
	struct { uint8_t pending; } triple_fault;
	uint8_t reserved[26], exception_has_payload;
	uint64_t exception_payload;
};
struct kx_mp_state { uint32_t mp_state; };
struct kx_guest_debug { uint32_t control, pad; uint64_t debugreg[8]; };
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
		struct { struct { uint32_t exception, pad; uint64_t pc, dr6, dr7; } arch; } debug;
		struct { uint64_t phys_addr; uint8_t data[8]; uint32_t len; uint8_t is_write; } mmio;
		struct { uint64_t nr, args[6], ret; uint32_t longmode, pad; } hypercall;
		struct { uint64_t rip; uint32_t is_write, pad; } tpr_access;
		struct { uint32_t suberror, ndata; uint64_t data[16]; } internal;
		struct { uint32_t suberror, ndata; uint64_t flags; uint8_t insn_size, insn_bytes[15]; } emulation_failure;
		struct { uint32_t type, ndata; uint64_t data[16]; } system_event;
		struct { uint8_t vector; } eoi;
		struct { uint8_t error, pad[7]; uint32_t reason, index; uint64_t data; } msr;
		struct { uint32_t flags; } notify;
		struct { uint64_t flags, gpa, size; } memory_fault; /* Linux 6.8 */
		uint8_t padding[256];
	};
	uint64_t kvm_valid_regs, kvm_dirty_regs;
	uint8_t s[2048];
};

enum kx_exit_reason {
	KX_EXIT_UNKNOWN = 0, KX_EXIT_EXCEPTION = 1, KX_EXIT_IO = 2, KX_EXIT_HYPERCALL = 3, KX_EXIT_DEBUG = 4,
	KX_EXIT_HLT = 5, KX_EXIT_MMIO = 6, KX_EXIT_IRQ_WINDOW_OPEN = 7, KX_EXIT_SHUTDOWN = 8, KX_EXIT_FAIL_ENTRY = 9,
	KX_EXIT_INTR = 10, KX_EXIT_SET_TPR = 11, KX_EXIT_TPR_ACCESS = 12, KX_EXIT_NMI = 16, KX_EXIT_INTERNAL_ERROR = 17,
	KX_EXIT_SYSTEM_EVENT = 24, KX_EXIT_IOAPIC_EOI = 26, KX_EXIT_X86_RDMSR = 29, KX_EXIT_X86_WRMSR = 30,
	KX_EXIT_NOTIFY = 37, KX_EXIT_MEMORY_FAULT = 39,
};

#define KX_SIZES(S) \
	S(userspace_memory_region, 32) S(userspace_memory_region2, 160) S(irq_level, 8) S(irqchip, 520) S(pit_config, 64) \
	S(pit_channel_state, 24) S(pit_state2, 112) S(clock_data, 48) S(irqfd, 32) S(ioeventfd, 64) S(irq_routing_irqchip, 8) \
	S(irq_routing_msi, 16) S(irq_routing_entry, 48) S(irq_routing, 8) S(msi, 32) S(dirty_log, 16) S(clear_dirty_log, 24) \
	S(enable_cap, 104) S(create_device, 12) S(device_attr, 24) S(coalesced_mmio_zone, 16) S(regs, 144) S(segment, 24) \
	S(dtable, 16) S(sregs, 312) S(sregs2, 320) S(fpu, 416) S(lapic_state, 1024) S(msr_entry, 16) S(msrs, 8) S(msr_list, 4) \
	S(cpuid_entry2, 40) S(cpuid2, 8) S(xsave, 4096) S(xcr, 16) S(xcrs, 392) S(debugregs, 128) S(vcpu_events, 64) \
	S(mp_state, 4) S(guest_debug, 72) S(translation, 24) S(interrupt, 4) S(run, 2352)

/* F(struct, field, offset): offsets are written down, so a changed compiler or edit cannot move one unnoticed. */
#define KX_FIELDS(F) \
	F(userspace_memory_region, slot, 0) F(userspace_memory_region, flags, 4) F(userspace_memory_region, guest_phys_addr, 8) \
	F(userspace_memory_region, memory_size, 16) F(userspace_memory_region, userspace_addr, 24) \
	F(userspace_memory_region2, slot, 0) F(userspace_memory_region2, flags, 4) F(userspace_memory_region2, guest_phys_addr, 8) \
	F(userspace_memory_region2, memory_size, 16) F(userspace_memory_region2, userspace_addr, 24) \
	F(userspace_memory_region2, guest_memfd_offset, 32) F(userspace_memory_region2, guest_memfd, 40) \
	F(irq_level, irq, 0) F(irq_level, level, 4) F(irqchip, chip_id, 0) F(irqchip, chip, 8) F(pit_config, flags, 0) \
	F(pit_state2, channels, 0) F(pit_state2, flags, 72) \
	F(clock_data, clock, 0) F(clock_data, flags, 8) F(clock_data, realtime, 16) F(clock_data, host_tsc, 24) \
	F(irqfd, fd, 0) F(irqfd, gsi, 4) F(irqfd, flags, 8) F(irqfd, resamplefd, 12) \
	F(ioeventfd, datamatch, 0) F(ioeventfd, addr, 8) F(ioeventfd, len, 16) F(ioeventfd, fd, 20) F(ioeventfd, flags, 24) \
	F(irq_routing_irqchip, irqchip, 0) F(irq_routing_irqchip, pin, 4) F(irq_routing_msi, address_lo, 0) \
	F(irq_routing_msi, address_hi, 4) F(irq_routing_msi, data, 8) F(irq_routing_msi, devid, 12) \
	F(irq_routing_entry, gsi, 0) F(irq_routing_entry, type, 4) F(irq_routing_entry, flags, 8) F(irq_routing_entry, u, 16) \
	F(irq_routing, nr, 0) F(irq_routing, flags, 4) \
	F(msi, address_lo, 0) F(msi, address_hi, 4) F(msi, data, 8) F(msi, flags, 12) F(msi, devid, 16) \
	F(dirty_log, slot, 0) F(dirty_log, dirty_bitmap, 8) F(clear_dirty_log, slot, 0) F(clear_dirty_log, num_pages, 4) \
	F(clear_dirty_log, first_page, 8) F(clear_dirty_log, dirty_bitmap, 16) F(enable_cap, cap, 0) F(enable_cap, flags, 4) \
	F(enable_cap, args, 8) F(create_device, type, 0) F(create_device, fd, 4) F(create_device, flags, 8) \
	F(device_attr, flags, 0) F(device_attr, group, 4) F(device_attr, attr, 8) F(device_attr, addr, 16) \
	F(coalesced_mmio_zone, addr, 0) F(coalesced_mmio_zone, size, 8) F(coalesced_mmio_zone, pio, 12) \
	F(regs, rax, 0) F(regs, rbx, 8) F(regs, rcx, 16) F(regs, rdx, 24) F(regs, rsi, 32) F(regs, rdi, 40) F(regs, rsp, 48) \
	F(regs, rbp, 56) F(regs, r8, 64) F(regs, r9, 72) F(regs, r10, 80) F(regs, r11, 88) F(regs, r12, 96) F(regs, r13, 104) \
	F(regs, r14, 112) F(regs, r15, 120) F(regs, rip, 128) F(regs, rflags, 136) \
	F(segment, base, 0) F(segment, limit, 8) F(segment, selector, 12) F(segment, type, 14) F(segment, present, 15) \
	F(segment, dpl, 16) F(segment, db, 17) F(segment, s, 18) F(segment, l, 19) F(segment, g, 20) F(segment, avl, 21) \
	F(segment, unusable, 22) F(dtable, base, 0) F(dtable, limit, 8) \
	F(sregs, cs, 0) F(sregs, ds, 24) F(sregs, es, 48) F(sregs, fs, 72) F(sregs, gs, 96) F(sregs, ss, 120) F(sregs, tr, 144) \
	F(sregs, ldt, 168) F(sregs, gdt, 192) F(sregs, idt, 208) F(sregs, cr0, 224) F(sregs, cr2, 232) F(sregs, cr3, 240) \
	F(sregs, cr4, 248) F(sregs, cr8, 256) F(sregs, efer, 264) F(sregs, apic_base, 272) F(sregs, interrupt_bitmap, 280) \
	F(sregs2, cs, 0) F(sregs2, ds, 24) F(sregs2, es, 48) F(sregs2, fs, 72) F(sregs2, gs, 96) F(sregs2, ss, 120) \
	F(sregs2, tr, 144) F(sregs2, ldt, 168) F(sregs2, gdt, 192) F(sregs2, idt, 208) F(sregs2, cr0, 224) F(sregs2, cr2, 232) \
	F(sregs2, cr3, 240) F(sregs2, cr4, 248) F(sregs2, cr8, 256) F(sregs2, efer, 264) F(sregs2, apic_base, 272) \
	F(sregs2, flags, 280) F(sregs2, pdptrs, 288) \
	F(fpu, fpr, 0) F(fpu, fcw, 128) F(fpu, fsw, 130) F(fpu, ftwx, 132) F(fpu, last_opcode, 134) F(fpu, last_ip, 136) \
	F(fpu, last_dp, 144) F(fpu, xmm, 152) F(fpu, mxcsr, 408) F(lapic_state, regs, 0) \
	F(msr_entry, index, 0) F(msr_entry, data, 8) F(msrs, nmsrs, 0) F(msr_list, nmsrs, 0) \
	F(cpuid_entry2, function, 0) F(cpuid_entry2, index, 4) F(cpuid_entry2, flags, 8) F(cpuid_entry2, eax, 12) \
	F(cpuid_entry2, ebx, 16) F(cpuid_entry2, ecx, 20) F(cpuid_entry2, edx, 24) F(cpuid2, nent, 0) F(xsave, region, 0) \
	F(xcr, xcr, 0) F(xcr, value, 8) F(xcrs, nr_xcrs, 0) F(xcrs, flags, 4) F(xcrs, xcrs, 8) \
	F(debugregs, db, 0) F(debugregs, dr6, 32) F(debugregs, dr7, 40) F(debugregs, flags, 48) \
	F(vcpu_events, exception.injected, 0) F(vcpu_events, exception.nr, 1) F(vcpu_events, exception.has_error_code, 2) \
	F(vcpu_events, exception.pending, 3) F(vcpu_events, exception.error_code, 4) F(vcpu_events, interrupt.injected, 8) \
	F(vcpu_events, interrupt.nr, 9) F(vcpu_events, interrupt.soft, 10) F(vcpu_events, interrupt.shadow, 11) \
	F(vcpu_events, nmi.injected, 12) F(vcpu_events, nmi.pending, 13) F(vcpu_events, nmi.masked, 14) \
	F(vcpu_events, sipi_vector, 16) F(vcpu_events, flags, 20) F(vcpu_events, smi.smm, 24) F(vcpu_events, smi.pending, 25) \
	F(vcpu_events, smi.smm_inside_nmi, 26) F(vcpu_events, smi.latched_init, 27) F(vcpu_events, triple_fault.pending, 28) \
	F(vcpu_events, exception_has_payload, 55) F(vcpu_events, exception_payload, 56) \
	F(mp_state, mp_state, 0) F(guest_debug, control, 0) F(guest_debug, debugreg, 8) \
	F(translation, linear_address, 0) F(translation, physical_address, 8) F(translation, valid, 16) \
	F(translation, writeable, 17) F(translation, usermode, 18) F(interrupt, irq, 0) \
	F(run, request_interrupt_window, 0) F(run, immediate_exit, 1) F(run, exit_reason, 8) \
	F(run, ready_for_interrupt_injection, 12) F(run, if_flag, 13) F(run, flags, 14) F(run, cr8, 16) F(run, apic_base, 24) \
	F(run, hw.hardware_exit_reason, 32) F(run, fail_entry.hardware_entry_failure_reason, 32) F(run, fail_entry.cpu, 40) \
	F(run, ex.exception, 32) F(run, ex.error_code, 36) F(run, io.direction, 32) F(run, io.size, 33) F(run, io.port, 34) \
	F(run, io.count, 36) F(run, io.data_offset, 40) F(run, debug.arch.exception, 32) F(run, debug.arch.pc, 40) \
	F(run, debug.arch.dr6, 48) F(run, debug.arch.dr7, 56) F(run, mmio.phys_addr, 32) F(run, mmio.data, 40) \
	F(run, mmio.len, 48) F(run, mmio.is_write, 52) F(run, hypercall.nr, 32) F(run, hypercall.args, 40) \
	F(run, hypercall.ret, 88) F(run, tpr_access.rip, 32) F(run, tpr_access.is_write, 40) F(run, internal.suberror, 32) \
	F(run, internal.ndata, 36) F(run, internal.data, 40) F(run, emulation_failure.flags, 40) \
	F(run, emulation_failure.insn_size, 48) F(run, emulation_failure.insn_bytes, 49) F(run, system_event.type, 32) \
	F(run, system_event.ndata, 36) F(run, system_event.data, 40) F(run, eoi.vector, 32) F(run, msr.error, 32) \
	F(run, msr.reason, 40) F(run, msr.index, 44) F(run, msr.data, 48) F(run, notify.flags, 32) \
	F(run, kvm_valid_regs, 288) F(run, kvm_dirty_regs, 296) F(run, s, 304)

#define KX_IOCTLS(I) \
	I(GET_API_VERSION, KX_IO(0x00)) I(CREATE_VM, KX_IO(0x01)) I(GET_MSR_INDEX_LIST, KX_IOWR(0x02, struct kx_msr_list)) \
	I(CHECK_EXTENSION, KX_IO(0x03)) I(GET_VCPU_MMAP_SIZE, KX_IO(0x04)) I(GET_SUPPORTED_CPUID, KX_IOWR(0x05, struct kx_cpuid2)) \
	I(GET_EMULATED_CPUID, KX_IOWR(0x09, struct kx_cpuid2)) I(GET_MSR_FEATURE_INDEX_LIST, KX_IOWR(0x0a, struct kx_msr_list)) \
	I(CREATE_VCPU, KX_IO(0x41)) I(GET_DIRTY_LOG, KX_IOW(0x42, struct kx_dirty_log)) \
	I(SET_USER_MEMORY_REGION, KX_IOW(0x46, struct kx_userspace_memory_region)) I(SET_TSS_ADDR, KX_IO(0x47)) \
	I(SET_IDENTITY_MAP_ADDR, KX_IOW(0x48, uint64_t)) I(SET_USER_MEMORY_REGION2, KX_IOW(0x49, struct kx_userspace_memory_region2)) \
	I(CREATE_IRQCHIP, KX_IO(0x60)) I(IRQ_LINE, KX_IOW(0x61, struct kx_irq_level)) I(GET_IRQCHIP, KX_IOWR(0x62, struct kx_irqchip)) \
	I(SET_IRQCHIP, KX_IOR(0x63, struct kx_irqchip)) I(IRQ_LINE_STATUS, KX_IOWR(0x67, struct kx_irq_level)) \
	I(REGISTER_COALESCED_MMIO, KX_IOW(0x67, struct kx_coalesced_mmio_zone)) \
	I(UNREGISTER_COALESCED_MMIO, KX_IOW(0x68, struct kx_coalesced_mmio_zone)) \
	I(SET_GSI_ROUTING, KX_IOW(0x6a, struct kx_irq_routing)) I(IRQFD, KX_IOW(0x76, struct kx_irqfd)) \
	I(CREATE_PIT2, KX_IOW(0x77, struct kx_pit_config)) I(SET_BOOT_CPU_ID, KX_IO(0x78)) I(IOEVENTFD, KX_IOW(0x79, struct kx_ioeventfd)) \
	I(SET_CLOCK, KX_IOW(0x7b, struct kx_clock_data)) I(GET_CLOCK, KX_IOR(0x7c, struct kx_clock_data)) \
	I(RUN, KX_IO(0x80)) I(GET_REGS, KX_IOR(0x81, struct kx_regs)) I(SET_REGS, KX_IOW(0x82, struct kx_regs)) \
	I(GET_SREGS, KX_IOR(0x83, struct kx_sregs)) I(SET_SREGS, KX_IOW(0x84, struct kx_sregs)) \
	I(TRANSLATE, KX_IOWR(0x85, struct kx_translation)) I(INTERRUPT, KX_IOW(0x86, struct kx_interrupt)) \
	I(GET_MSRS, KX_IOWR(0x88, struct kx_msrs)) I(SET_MSRS, KX_IOW(0x89, struct kx_msrs)) \
	I(GET_FPU, KX_IOR(0x8c, struct kx_fpu)) I(SET_FPU, KX_IOW(0x8d, struct kx_fpu)) \
	I(GET_LAPIC, KX_IOR(0x8e, struct kx_lapic_state)) I(SET_LAPIC, KX_IOW(0x8f, struct kx_lapic_state)) \
	I(SET_CPUID2, KX_IOW(0x90, struct kx_cpuid2)) I(GET_CPUID2, KX_IOWR(0x91, struct kx_cpuid2)) \
	I(GET_MP_STATE, KX_IOR(0x98, struct kx_mp_state)) I(SET_MP_STATE, KX_IOW(0x99, struct kx_mp_state)) I(NMI, KX_IO(0x9a)) \
	I(SET_GUEST_DEBUG, KX_IOW(0x9b, struct kx_guest_debug)) I(GET_PIT2, KX_IOR(0x9f, struct kx_pit_state2)) \
	I(SET_PIT2, KX_IOW(0xa0, struct kx_pit_state2)) I(GET_VCPU_EVENTS, KX_IOR(0x9f, struct kx_vcpu_events)) \
	I(SET_VCPU_EVENTS, KX_IOW(0xa0, struct kx_vcpu_events)) I(GET_DEBUGREGS, KX_IOR(0xa1, struct kx_debugregs)) \
	I(SET_DEBUGREGS, KX_IOW(0xa2, struct kx_debugregs)) I(SET_TSC_KHZ, KX_IO(0xa2)) I(GET_TSC_KHZ, KX_IO(0xa3)) \
	I(ENABLE_CAP, KX_IOW(0xa3, struct kx_enable_cap)) I(GET_XSAVE, KX_IOR(0xa4, struct kx_xsave)) \
	I(SET_XSAVE, KX_IOW(0xa5, struct kx_xsave)) I(SIGNAL_MSI, KX_IOW(0xa5, struct kx_msi)) I(GET_XCRS, KX_IOR(0xa6, struct kx_xcrs)) \
	I(SET_XCRS, KX_IOW(0xa7, struct kx_xcrs)) I(KVMCLOCK_CTRL, KX_IO(0xad)) I(SMI, KX_IO(0xb7)) \
	I(CLEAR_DIRTY_LOG, KX_IOWR(0xc0, struct kx_clear_dirty_log)) I(GET_SREGS2, KX_IOR(0xcc, struct kx_sregs2)) \
	I(SET_SREGS2, KX_IOW(0xcd, struct kx_sregs2)) I(GET_XSAVE2, KX_IOR(0xcf, struct kx_xsave)) \
	I(CREATE_DEVICE, KX_IOWR(0xe0, struct kx_create_device)) I(SET_DEVICE_ATTR, KX_IOW(0xe1, struct kx_device_attr)) \
	I(GET_DEVICE_ATTR, KX_IOW(0xe2, struct kx_device_attr)) I(HAS_DEVICE_ATTR, KX_IOW(0xe3, struct kx_device_attr))

#define KX_ASSERT_SIZE(s, n) _Static_assert(sizeof(struct kx_##s) == (n), "size of kvm_" #s);
#define KX_ASSERT_OFFSET(s, f, n) _Static_assert(offsetof(struct kx_##s, f) == (n), "offset of kvm_" #s "." #f);
KX_SIZES(KX_ASSERT_SIZE)
KX_FIELDS(KX_ASSERT_OFFSET)

#define KX_IOCTL_CONSTANT(name, number) KX_##name = (int64_t)(number),
enum kx_ioctl { KX_IOCTLS(KX_IOCTL_CONSTANT) };

#endif
