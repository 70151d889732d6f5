/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * What only riscv64 has: registers have ids, not structs; included by kvm_abi.h.
 */
#ifndef KVM_ABI_RISCV64_H
#define KVM_ABI_RISCV64_H

#include <stddef.h>
#include <stdint.h>

struct kx_riscv64_guest_debug { uint32_t control, pad; }; /* the kernel's part of this architecture is empty */

#define KX_RISCV64_SIZES(S) \
	S(riscv64_guest_debug, 8)

#define KX_RISCV64_FIELDS(F) \
	F(riscv64_guest_debug, control, 0)

#define KX_RISCV64_IOCTLS(I) \
	I(RISCV64_SET_GUEST_DEBUG, KX_IOW(0x9b, struct kx_riscv64_guest_debug))

#endif
