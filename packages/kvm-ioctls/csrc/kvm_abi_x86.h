/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * What only x86-64 has; included by kvm_abi.h.
 */
#ifndef KVM_ABI_X86_H
#define KVM_ABI_X86_H

#include <stddef.h>
#include <stdint.h>

struct kx_pit_channel_state {
	uint32_t count;
	uint16_t latched_count;
	uint8_t count_latched, status_latched, status, read_state, write_state, write_latch;
	uint8_t rw_mode, mode, bcd, gate;
	int64_t count_load_time;
};
struct kx_pit_state2 { struct kx_pit_channel_state channels[3]; uint32_t flags, reserved[9]; };
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
struct kx_guest_debug { uint32_t control, pad; uint64_t debugreg[8]; };
struct kx_sync_regs { struct kx_regs regs; struct kx_sregs sregs; struct kx_vcpu_events events; };
struct kx_x86_mce { uint64_t status, addr, misc, mcg_status; uint8_t bank, pad1[7]; uint64_t pad2[3]; };
struct kx_msr_filter_range { uint32_t flags, nmsrs, base, pad; uint64_t bitmap; };
struct kx_msr_filter { uint32_t flags, pad; struct kx_msr_filter_range ranges[16]; };
struct kx_pmu_event_filter { uint32_t action, nevents, fixed_counter_bitmap, flags, pad[4]; };
struct kx_nested_state { uint16_t flags, format; uint32_t size; uint64_t hdr[15]; };
struct kx_hyperv_eventfd { uint32_t conn_id; int32_t fd; uint32_t flags, padding[3]; };
struct kx_reinject_control { uint8_t pit_reinject, reserved[31]; };
struct kx_sev_cmd { uint32_t id, pad0; uint64_t data; uint32_t error, sev_fd; };
struct kx_tdx_cmd { uint32_t id, flags; uint64_t data, hw_error; };
struct kx_xen_hvm_config {
	uint32_t flags, msr;
	uint64_t blob_addr_32, blob_addr_64;
	uint8_t blob_size_32, blob_size_64, pad2[30];
};
struct kx_xen_hvm_attr { uint16_t type, pad[3]; uint64_t u[8]; };
struct kx_xen_vcpu_attr { uint16_t type, pad[3]; uint64_t u[8]; };

#define KX_X86_SIZES(S) \
	S(pit_channel_state, 24) S(pit_state2, 112) S(regs, 144) S(segment, 24) S(dtable, 16) S(sregs, 312) \
	S(sregs2, 320) S(fpu, 416) S(lapic_state, 1024) S(msr_entry, 16) S(msrs, 8) S(msr_list, 4) S(cpuid_entry2, 40) \
	S(cpuid2, 8) S(xsave, 4096) S(xcr, 16) S(xcrs, 392) S(debugregs, 128) S(vcpu_events, 64) S(guest_debug, 72) \
	S(x86_mce, 64) S(msr_filter_range, 24) S(msr_filter, 392) S(pmu_event_filter, 32) S(nested_state, 128) \
	S(hyperv_eventfd, 24) S(reinject_control, 32) S(sev_cmd, 24) S(tdx_cmd, 24) S(xen_hvm_config, 56) \
	S(xen_hvm_attr, 72) S(xen_vcpu_attr, 72) S(sync_regs, 520)

#define KX_X86_FIELDS(F) \
	F(pit_state2, channels, 0) F(pit_state2, flags, 72) F(regs, rax, 0) F(regs, rbx, 8) F(regs, rcx, 16) \
	F(regs, rdx, 24) F(regs, rsi, 32) F(regs, rdi, 40) F(regs, rsp, 48) F(regs, rbp, 56) F(regs, r8, 64) \
	F(regs, r9, 72) F(regs, r10, 80) F(regs, r11, 88) F(regs, r12, 96) F(regs, r13, 104) F(regs, r14, 112) \
	F(regs, r15, 120) F(regs, rip, 128) F(regs, rflags, 136) F(segment, base, 0) F(segment, limit, 8) \
	F(segment, selector, 12) F(segment, type, 14) F(segment, present, 15) F(segment, dpl, 16) F(segment, db, 17) \
	F(segment, s, 18) F(segment, l, 19) F(segment, g, 20) F(segment, avl, 21) F(segment, unusable, 22) \
	F(dtable, base, 0) F(dtable, limit, 8) F(sregs, cs, 0) F(sregs, ds, 24) F(sregs, es, 48) F(sregs, fs, 72) \
	F(sregs, gs, 96) F(sregs, ss, 120) F(sregs, tr, 144) F(sregs, ldt, 168) F(sregs, gdt, 192) F(sregs, idt, 208) \
	F(sregs, cr0, 224) F(sregs, cr2, 232) F(sregs, cr3, 240) F(sregs, cr4, 248) F(sregs, cr8, 256) \
	F(sregs, efer, 264) F(sregs, apic_base, 272) F(sregs, interrupt_bitmap, 280) F(sregs2, cs, 0) F(sregs2, ds, 24) \
	F(sregs2, es, 48) F(sregs2, fs, 72) F(sregs2, gs, 96) F(sregs2, ss, 120) F(sregs2, tr, 144) F(sregs2, ldt, 168) \
	F(sregs2, gdt, 192) F(sregs2, idt, 208) F(sregs2, cr0, 224) F(sregs2, cr2, 232) F(sregs2, cr3, 240) \
	F(sregs2, cr4, 248) F(sregs2, cr8, 256) F(sregs2, efer, 264) F(sregs2, apic_base, 272) F(sregs2, flags, 280) \
	F(sregs2, pdptrs, 288) F(fpu, fpr, 0) F(fpu, fcw, 128) F(fpu, fsw, 130) F(fpu, ftwx, 132) \
	F(fpu, last_opcode, 134) F(fpu, last_ip, 136) F(fpu, last_dp, 144) F(fpu, xmm, 152) F(fpu, mxcsr, 408) \
	F(lapic_state, regs, 0) F(msr_entry, index, 0) F(msr_entry, data, 8) F(msrs, nmsrs, 0) F(msr_list, nmsrs, 0) \
	F(cpuid_entry2, function, 0) F(cpuid_entry2, index, 4) F(cpuid_entry2, flags, 8) F(cpuid_entry2, eax, 12) \
	F(cpuid_entry2, ebx, 16) F(cpuid_entry2, ecx, 20) F(cpuid_entry2, edx, 24) F(cpuid2, nent, 0) \
	F(xsave, region, 0) F(xcr, xcr, 0) F(xcr, value, 8) F(xcrs, nr_xcrs, 0) F(xcrs, flags, 4) F(xcrs, xcrs, 8) \
	F(debugregs, db, 0) F(debugregs, dr6, 32) F(debugregs, dr7, 40) F(debugregs, flags, 48) \
	F(vcpu_events, exception.injected, 0) F(vcpu_events, exception.nr, 1) \
	F(vcpu_events, exception.has_error_code, 2) F(vcpu_events, exception.pending, 3) \
	F(vcpu_events, exception.error_code, 4) F(vcpu_events, interrupt.injected, 8) F(vcpu_events, interrupt.nr, 9) \
	F(vcpu_events, interrupt.soft, 10) F(vcpu_events, interrupt.shadow, 11) F(vcpu_events, nmi.injected, 12) \
	F(vcpu_events, nmi.pending, 13) F(vcpu_events, nmi.masked, 14) F(vcpu_events, sipi_vector, 16) \
	F(vcpu_events, flags, 20) F(vcpu_events, smi.smm, 24) F(vcpu_events, smi.pending, 25) \
	F(vcpu_events, smi.smm_inside_nmi, 26) F(vcpu_events, smi.latched_init, 27) \
	F(vcpu_events, triple_fault.pending, 28) F(vcpu_events, exception_has_payload, 55) \
	F(vcpu_events, exception_payload, 56) F(guest_debug, control, 0) F(guest_debug, debugreg, 8) \
	F(run, debug.arch.exception, 32) F(run, debug.arch.pc, 40) F(run, debug.arch.dr6, 48) \
	F(run, debug.arch.dr7, 56) F(x86_mce, status, 0) F(x86_mce, addr, 8) F(x86_mce, misc, 16) \
	F(x86_mce, mcg_status, 24) F(x86_mce, bank, 32) F(msr_filter_range, flags, 0) F(msr_filter_range, nmsrs, 4) \
	F(msr_filter_range, base, 8) F(msr_filter_range, bitmap, 16) F(msr_filter, flags, 0) F(msr_filter, ranges, 8) \
	F(pmu_event_filter, action, 0) F(pmu_event_filter, nevents, 4) F(pmu_event_filter, fixed_counter_bitmap, 8) \
	F(pmu_event_filter, flags, 12) F(nested_state, flags, 0) F(nested_state, format, 2) F(nested_state, size, 4) \
	F(nested_state, hdr, 8) F(hyperv_eventfd, conn_id, 0) F(hyperv_eventfd, fd, 4) F(hyperv_eventfd, flags, 8) \
	F(reinject_control, pit_reinject, 0) F(sev_cmd, id, 0) F(sev_cmd, data, 8) F(sev_cmd, error, 16) \
	F(sev_cmd, sev_fd, 20) F(tdx_cmd, id, 0) F(tdx_cmd, flags, 4) F(tdx_cmd, data, 8) F(tdx_cmd, hw_error, 16) \
	F(xen_hvm_config, flags, 0) F(xen_hvm_config, msr, 4) F(xen_hvm_config, blob_addr_32, 8) \
	F(xen_hvm_config, blob_addr_64, 16) F(xen_hvm_config, blob_size_32, 24) F(xen_hvm_config, blob_size_64, 25) \
	F(xen_hvm_attr, type, 0) F(xen_hvm_attr, u, 8) F(xen_vcpu_attr, type, 0) F(xen_vcpu_attr, u, 8) \
	F(sync_regs, regs, 0) F(sync_regs, sregs, 144) F(sync_regs, events, 456)

#define KX_X86_IOCTLS(I) \
	I(GET_MSR_INDEX_LIST, KX_IOWR(0x02, struct kx_msr_list)) \
	I(GET_SUPPORTED_CPUID, KX_IOWR(0x05, struct kx_cpuid2)) I(GET_EMULATED_CPUID, KX_IOWR(0x09, struct kx_cpuid2)) \
	I(GET_MSR_FEATURE_INDEX_LIST, KX_IOWR(0x0a, struct kx_msr_list)) I(SET_TSS_ADDR, KX_IO(0x47)) \
	I(SET_IDENTITY_MAP_ADDR, KX_IOW(0x48, uint64_t)) I(GET_IRQCHIP, KX_IOWR(0x62, struct kx_irqchip)) \
	I(SET_IRQCHIP, KX_IOR(0x63, struct kx_irqchip)) I(CREATE_PIT2, KX_IOW(0x77, struct kx_pit_config)) \
	I(SET_BOOT_CPU_ID, KX_IO(0x78)) I(SET_CLOCK, KX_IOW(0x7b, struct kx_clock_data)) \
	I(GET_CLOCK, KX_IOR(0x7c, struct kx_clock_data)) I(GET_REGS, KX_IOR(0x81, struct kx_regs)) \
	I(SET_REGS, KX_IOW(0x82, struct kx_regs)) I(GET_SREGS, KX_IOR(0x83, struct kx_sregs)) \
	I(SET_SREGS, KX_IOW(0x84, struct kx_sregs)) I(TRANSLATE, KX_IOWR(0x85, struct kx_translation)) \
	I(GET_MSRS, KX_IOWR(0x88, struct kx_msrs)) I(SET_MSRS, KX_IOW(0x89, struct kx_msrs)) \
	I(GET_FPU, KX_IOR(0x8c, struct kx_fpu)) I(SET_FPU, KX_IOW(0x8d, struct kx_fpu)) \
	I(GET_LAPIC, KX_IOR(0x8e, struct kx_lapic_state)) I(SET_LAPIC, KX_IOW(0x8f, struct kx_lapic_state)) \
	I(SET_CPUID2, KX_IOW(0x90, struct kx_cpuid2)) I(GET_CPUID2, KX_IOWR(0x91, struct kx_cpuid2)) \
	I(NMI, KX_IO(0x9a)) I(SET_GUEST_DEBUG, KX_IOW(0x9b, struct kx_guest_debug)) \
	I(GET_PIT2, KX_IOR(0x9f, struct kx_pit_state2)) I(SET_PIT2, KX_IOW(0xa0, struct kx_pit_state2)) \
	I(GET_VCPU_EVENTS, KX_IOR(0x9f, struct kx_vcpu_events)) I(SET_VCPU_EVENTS, KX_IOW(0xa0, struct kx_vcpu_events)) \
	I(GET_DEBUGREGS, KX_IOR(0xa1, struct kx_debugregs)) I(SET_DEBUGREGS, KX_IOW(0xa2, struct kx_debugregs)) \
	I(SET_TSC_KHZ, KX_IO(0xa2)) I(GET_TSC_KHZ, KX_IO(0xa3)) I(GET_XSAVE, KX_IOR(0xa4, struct kx_xsave)) \
	I(SET_XSAVE, KX_IOW(0xa5, struct kx_xsave)) I(GET_XCRS, KX_IOR(0xa6, struct kx_xcrs)) \
	I(SET_XCRS, KX_IOW(0xa7, struct kx_xcrs)) I(KVMCLOCK_CTRL, KX_IO(0xad)) I(SMI, KX_IO(0xb7)) \
	I(GET_SREGS2, KX_IOR(0xcc, struct kx_sregs2)) I(SET_SREGS2, KX_IOW(0xcd, struct kx_sregs2)) \
	I(GET_XSAVE2, KX_IOR(0xcf, struct kx_xsave)) I(GET_SUPPORTED_HV_CPUID, KX_IOWR(0xc1, struct kx_cpuid2)) \
	I(SET_NR_MMU_PAGES, KX_IO(0x44)) I(GET_NR_MMU_PAGES, KX_IO(0x45)) I(REINJECT_CONTROL, KX_IO(0x71)) \
	I(XEN_HVM_CONFIG, KX_IOW(0x7a, struct kx_xen_hvm_config)) \
	I(TPR_ACCESS_REPORTING, KX_IOWR(0x92, struct kx_tpr_access_ctl)) \
	I(SET_VAPIC_ADDR, KX_IOW(0x93, struct kx_vapic_addr)) I(X86_SETUP_MCE, KX_IOW(0x9c, uint64_t)) \
	I(X86_GET_MCE_CAP_SUPPORTED, KX_IOR(0x9d, uint64_t)) I(X86_SET_MCE, KX_IOW(0x9e, struct kx_x86_mce)) \
	I(SET_PMU_EVENT_FILTER, KX_IOW(0xb2, struct kx_pmu_event_filter)) I(MEMORY_ENCRYPT_OP, KX_IOWR(0xba, uint64_t)) \
	I(MEMORY_ENCRYPT_REG_REGION, KX_IOR(0xbb, struct kx_enc_region)) \
	I(MEMORY_ENCRYPT_UNREG_REGION, KX_IOR(0xbc, struct kx_enc_region)) \
	I(HYPERV_EVENTFD, KX_IOW(0xbd, struct kx_hyperv_eventfd)) \
	I(GET_NESTED_STATE, KX_IOWR(0xbe, struct kx_nested_state)) \
	I(SET_NESTED_STATE, KX_IOW(0xbf, struct kx_nested_state)) \
	I(X86_SET_MSR_FILTER, KX_IOW(0xc6, struct kx_msr_filter)) \
	I(XEN_HVM_GET_ATTR, KX_IOWR(0xc8, struct kx_xen_hvm_attr)) \
	I(XEN_HVM_SET_ATTR, KX_IOW(0xc9, struct kx_xen_hvm_attr)) \
	I(XEN_VCPU_GET_ATTR, KX_IOWR(0xca, struct kx_xen_vcpu_attr)) \
	I(XEN_VCPU_SET_ATTR, KX_IOW(0xcb, struct kx_xen_vcpu_attr)) \
	I(XEN_HVM_EVTCHN_SEND, KX_IOW(0xd0, struct kx_irq_routing_xen_evtchn))

#endif
