/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * What only arm64 has; included by kvm_abi.h.
 */
#ifndef KVM_ABI_ARM64_H
#define KVM_ABI_ARM64_H

#include <stddef.h>
#include <stdint.h>

struct kx_arm64_vcpu_init { uint32_t target, features[7]; };
struct kx_arm64_vcpu_events {
	struct { uint8_t serror_pending, serror_has_esr, ext_dabt_pending, pad[5]; uint64_t serror_esr; } exception;
	uint32_t reserved[12];
};
struct kx_arm64_guest_debug { uint32_t control, pad; uint64_t dbg_bcr[16], dbg_bvr[16], dbg_wcr[16], dbg_wvr[16]; };
struct kx_arm64_debug_exit { uint32_t hsr, hsr_high; uint64_t far; };
struct kx_arm64_pmu_event_filter { uint16_t base_event, nevents; uint8_t action, pad[3]; };
struct kx_arm64_copy_mte_tags { uint64_t guest_ipa, length, addr, flags, reserved[2]; };
struct kx_arm64_counter_offset { uint64_t counter_offset, reserved; };
struct kx_arm64_smccc_filter { uint32_t base, nr_functions; uint8_t action, pad[15]; };
struct kx_arm64_reg_mask_range { uint64_t addr; uint32_t range, reserved[13]; };

#define KX_ARM64_SIZES(S) \
	S(arm64_vcpu_init, 32) S(arm64_vcpu_events, 64) S(arm64_guest_debug, 520) S(arm64_debug_exit, 16) \
	S(arm64_pmu_event_filter, 8) S(arm64_copy_mte_tags, 48) S(arm64_counter_offset, 16) S(arm64_smccc_filter, 24) \
	S(arm64_reg_mask_range, 64)

#define KX_ARM64_FIELDS(F) \
	F(arm64_vcpu_init, target, 0) F(arm64_vcpu_init, features, 4) F(arm64_vcpu_events, exception.serror_pending, 0) \
	F(arm64_vcpu_events, exception.serror_has_esr, 1) F(arm64_vcpu_events, exception.ext_dabt_pending, 2) \
	F(arm64_vcpu_events, exception.serror_esr, 8) F(arm64_guest_debug, control, 0) F(arm64_guest_debug, dbg_bcr, 8) \
	F(arm64_guest_debug, dbg_bvr, 136) F(arm64_guest_debug, dbg_wcr, 264) F(arm64_guest_debug, dbg_wvr, 392) \
	F(arm64_debug_exit, hsr, 0) F(arm64_debug_exit, hsr_high, 4) F(arm64_debug_exit, far, 8) \
	F(arm64_pmu_event_filter, base_event, 0) F(arm64_pmu_event_filter, nevents, 2) \
	F(arm64_pmu_event_filter, action, 4) F(arm64_copy_mte_tags, guest_ipa, 0) F(arm64_copy_mte_tags, length, 8) \
	F(arm64_copy_mte_tags, addr, 16) F(arm64_copy_mte_tags, flags, 24) F(arm64_counter_offset, counter_offset, 0) \
	F(arm64_smccc_filter, base, 0) F(arm64_smccc_filter, nr_functions, 4) F(arm64_smccc_filter, action, 8) \
	F(arm64_reg_mask_range, addr, 0) F(arm64_reg_mask_range, range, 8)

#define KX_ARM64_IOCTLS(I) \
	I(ARM_VCPU_INIT, KX_IOW(0xae, struct kx_arm64_vcpu_init)) \
	I(ARM_PREFERRED_TARGET, KX_IOR(0xaf, struct kx_arm64_vcpu_init)) I(ARM_VCPU_FINALIZE, KX_IOW(0xc2, int32_t)) \
	I(ARM_MTE_COPY_TAGS, KX_IOR(0xb4, struct kx_arm64_copy_mte_tags)) \
	I(ARM_SET_COUNTER_OFFSET, KX_IOW(0xb5, struct kx_arm64_counter_offset)) \
	I(ARM_GET_REG_WRITABLE_MASKS, KX_IOR(0xb6, struct kx_arm64_reg_mask_range)) \
	I(ARM64_SET_GUEST_DEBUG, KX_IOW(0x9b, struct kx_arm64_guest_debug))

#endif
