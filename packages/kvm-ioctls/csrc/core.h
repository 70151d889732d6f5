/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * The moving half of kvm-ioctls: ioctls, the run loop, the native-exit table. No policy, no Python.
 * Every function returns 0 or a positive answer, or -errno.
 */
#ifndef KVMX_CORE_H
#define KVMX_CORE_H

#include "kvm_abi.h"

#define KVMX_ABI 2u
#define KVMX_REASONS 48u     /* KVM_EXIT_* known today end at 42; the last cell counts all above */
#define KVMX_WORDS 32u     /* the whole union of an exit without a decoder */
#define KVMX_RUN_BUDGET 65536 /* native exits in one call, so that a caller's signals are never starved */

/* One exit, copied out of the shared page once and checked. */
struct kvmx_exit {
	uint32_t reason;
	uint8_t is_mmio, is_write;
	uint8_t size;         /* bytes of one element */
	uint8_t pad;
	uint32_t count;       /* elements; 1 unless string port I/O */
	uint32_t nwords;
	uint64_t addr;        /* port or guest physical address */
	uint64_t value;       /* first element, little-endian; all-ones for a read */
	uint64_t data_offset; /* of the count * size data bytes in the run page */
	uint64_t words[KVMX_WORDS];
};

enum kvmx_action { KVMX_NONE = 0, KVMX_CONSTANT = 1, KVMX_DROP = 2, KVMX_LATCH = 3, KVMX_EVENTFD = 4, KVMX_COUNTER = 5,
		   KVMX_RING = 6 };

struct kvmx_ring;

struct kvmx_range {
	uint64_t base, last;
	uint64_t constant;    /* reads: this value, truncated to the access size */
	uint64_t *read_cell;  /* reads of a latch or counter */
	uint64_t *write_cell;
	struct kvmx_ring *ring;
	uint64_t hits;
	int32_t fd;
	uint8_t read_kind, write_kind, pad[2];
};

/* Sorted by base, disjoint, per space. */
struct kvmx_table {
	uint64_t abi;         /* KVMX_ABI << 32 | sizeof(struct kvmx_table) */
	uint32_t npio, nmmio;
	struct kvmx_range *pio, *mmio;
};

struct kvmx_stats {
	uint64_t exits[KVMX_REASONS]; /* by KVM_EXIT_* */
	uint64_t native;              /* answered in C */
	uint64_t kicks;               /* runs ended by a kick */
	uint64_t interrupted;         /* EINTR without a kick */
	uint64_t waits;               /* EAGAIN: an AP that waits for its SIPI */
};

/* One harvested entry of a dirty ring, and of the coalesced ring or ours. */
struct kvmx_dirty { uint64_t page; uint32_t slot, pad; };
struct kvmx_write { uint64_t addr, data; uint32_t size, pio; };

/* Written elements that a range keeps for Python: many vCPUs put, one thread takes. */
struct kvmx_slot { uint64_t turn; struct kvmx_write write; };
struct kvmx_ring {
	uint64_t tail, apart[7]; /* places given to writers so far; the rest of a cache line keeps the reader's off it */
	uint64_t head;           /* places read so far */
	uint32_t size;           /* slots, a power of two */
	int32_t fd;              /* eventfd that hears of a write to a ring whose reader has seen its end; or -1 */
	struct kvmx_slot *slots;
};

/* How a return of KVM_RUN went on. */
enum kvmx_how { KVMX_TO_CALLER = 0, KVMX_IN_C = 1, KVMX_KICK = 2, KVMX_SIGNAL = 3, KVMX_WAIT = 4 };

struct kvmx_traced {
	uint64_t entered, left; /* ns of CLOCK_MONOTONIC, before and after KVM_RUN */
	uint64_t addr;          /* port, address, or the first word of another exit */
	uint32_t reason, count;
	uint8_t how, is_write, size, pad[5];
};

struct kvmx_vcpu;

int kvmx_vcpu_create(int fd, uint32_t run_size, struct kvmx_vcpu **ret);
int kvmx_vcpu_close(struct kvmx_vcpu *v);   /* -EDEADLK while used by a thread; closes the fd */
void kvmx_vcpu_abandon(struct kvmx_vcpu *v); /* in a forked child: close its copy of the fd; idempotent */
void kvmx_vcpu_destroy(struct kvmx_vcpu *v);

int kvmx_vcpu_ioctl(struct kvmx_vcpu *v, uint64_t nr, void *arg);
int kvmx_vcpu_ioctl_value(struct kvmx_vcpu *v, uint64_t nr, uint64_t arg);
int kvmx_vcpu_run(struct kvmx_vcpu *v, struct kvmx_table *t, int complete_only);
int kvmx_vcpu_kick(struct kvmx_vcpu *v);
/* Keep a record of each return of KVM_RUN, `room` at most; 0 ends it. With no room left a run answers -ENOBUFS before
 * it enters the guest: nothing is lost. */
int kvmx_vcpu_trace(struct kvmx_vcpu *v, uint32_t room);
int kvmx_vcpu_trace_take(struct kvmx_vcpu *v, struct kvmx_traced *ret, uint32_t room);
int kvmx_vcpu_user(struct kvmx_vcpu *v);    /* thread id inside run or an ioctl, or 0 */
int kvmx_vcpu_set_value(struct kvmx_vcpu *v, uint64_t value);
int kvmx_vcpu_set_data(struct kvmx_vcpu *v, const uint8_t *data, uint64_t size);
int kvmx_vcpu_get_data(struct kvmx_vcpu *v, uint8_t *data, uint64_t size);
int kvmx_vcpu_reply_msr(struct kvmx_vcpu *v, int error, uint64_t data);
int kvmx_vcpu_reply(struct kvmx_vcpu *v, uint64_t first, uint64_t second); /* what the last exit waits for */
int kvmx_vcpu_request_window(struct kvmx_vcpu *v, int on);
int kvmx_vcpu_ready(struct kvmx_vcpu *v);   /* ready_for_interrupt_injection | if_flag << 1 | flags << 16 */
int kvmx_vcpu_sync_masks(struct kvmx_vcpu *v, uint64_t valid, uint64_t dirty);
int kvmx_vcpu_sync_copy(struct kvmx_vcpu *v, int write, uint32_t offset, uint8_t *data, uint32_t size);
struct kvmx_exit *kvmx_vcpu_exit(struct kvmx_vcpu *v);
struct kvmx_stats *kvmx_vcpu_stats(struct kvmx_vcpu *v);

int kvmx_ioctl(int fd, uint64_t nr, void *arg);
int kvmx_ioctl_value(int fd, uint64_t nr, uint64_t arg);

int kvmx_decode(const uint8_t *page, uint64_t page_size, struct kvmx_exit *ret);
int kvmx_reply(uint8_t *page, uint64_t first, uint64_t second);
int kvmx_native(struct kvmx_table *t, const struct kvmx_exit *e, uint8_t *page); /* 1 = answered */
int kvmx_table_check(const struct kvmx_table *t);
uint64_t kvmx_cell_load(const uint64_t *cell);
void kvmx_cell_store(uint64_t *cell, uint64_t value);

int kvmx_dirty_harvest(void *ring, uint32_t entries, uint32_t *next, struct kvmx_dirty *ret);
int kvmx_coalesced_drain(void *ring, uint32_t bytes, struct kvmx_write *ret);
int kvmx_ring_put(struct kvmx_ring *r, const struct kvmx_exit *e, const uint8_t *page); /* 1 = all kept, 0 = none */
int kvmx_ring_take(struct kvmx_ring *r, struct kvmx_write *ret, uint32_t most);

int kvmx_install_kick(void); /* empty handler, no SA_RESTART; -EEXIST if the process uses the signal */
int kvmx_block_signals(void);
int kvmx_core_cookie(int tid, uint64_t *ret); /* of a thread, 0 = the caller; *ret is 0 where it has none */
int kvmx_share_core(int tid);                 /* give the caller the cookie of a thread, or with 0 a new one */

int kvmx_layout(uint32_t i, const char **strct, const char **field, uint32_t *offset, uint32_t *size);
int kvmx_selftest_overrun(void);

#endif
