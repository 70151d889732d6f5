/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * See driver.h. Rules: VIRTIO 1.2, 2.7.13 and 2.7.14 (split), 2.8.13 to 2.8.21 (packed). */
#define _GNU_SOURCE
#include "driver.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NEXT 1u
#define WRITE 2u
#define AVAIL (1u << 7)
#define USED (1u << 15)
#define EVENT_DISABLE 1u
#define EVENT_DESC 2u
#define BUFFER_BYTES 64u /* of one request: both buffers, on a cache line of its own */

/* A race on purpose: nothing orders what a request consists of before what announces it. */
#ifdef DRIVER_SEEDED_RACE
#define PUBLISH __ATOMIC_RELAXED
#else
#define PUBLISH __ATOMIC_RELEASE
#endif

struct desc { /* split: next; packed: id and flags */
	uint64_t addr;
	uint32_t len;
	uint16_t third, fourth;
};

struct driver_layout driver_layout(uint64_t ring, uint32_t size, uint32_t packed)
{
	struct driver_layout l = {.desc = ring, .driver = ring + 16ul * size};

	l.device = packed ? l.driver + 4 : (l.driver + 6 + 2ul * size + 3) & ~3ul;
	l.end = l.device + (packed ? 4 : 6 + 8ul * size);
	l.end = (l.end + BUFFER_BYTES - 1) & ~(uint64_t)(BUFFER_BYTES - 1);
	l.end += BUFFER_BYTES * size;
	return l;
}

uint64_t run_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Mostly none, else up to a few microseconds of work, now and then the whole time slice. */
void run_delay(uint64_t *state)
{
	uint64_t dice = run_random(state);
	uint32_t turns = dice % 8 < 5 ? 0 : (dice >> 8) % (dice % 8 == 5 ? 64 : 1024);

	for (volatile uint32_t i = 0; i < turns; i++)
		;
	if ((dice >> 32) % 256 == 0)
		sched_yield();
}

uint64_t run_turns(uint64_t *state)
{
	uint64_t dice = run_random(state);

	return (dice >> 8) % (dice % 2 ? 128 : 16384);
}

int run_sleep(int fd, int patience, uint64_t *slept)
{
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	uint64_t count;

	if (read(fd, &count, sizeof(count)) == sizeof(count))
		return 0;
	__atomic_fetch_add(slept, 1, __ATOMIC_RELAXED);
	do {
		int rc = poll(&wait, 1, patience);

		if (rc == 0 || (rc < 0 && errno != EINTR))
			return 1;
	} while (read(fd, &count, sizeof(count)) != sizeof(count));
	return 0;
}

int run_ring_bell(int fd)
{
	uint64_t one = 1;

	return write(fd, &one, sizeof(one)) == sizeof(one) ? 0 : -errno;
}

static int wrong(struct driver *d, const char *what, uint64_t found, uint64_t expected)
{
	snprintf(d->wrong, sizeof(d->wrong), "driver: %s is %#llx, not %#llx", what, (unsigned long long)found,
		 (unsigned long long)expected);
	return RUN_WRONG;
}

/* SAFETY (all accesses to d->memory): the caller mapped everything up to driver_layout().end, and all offsets come from
 * that layout and from indices below size. Descriptors and buffers are plain memory: what orders them is the release
 * or acquire of the index or flags that hand them over. */
#define AT(type, address) ((type *)(d->memory + (address)))
#define LAYOUT driver_layout(d->ring, d->size, d->packed)

static uint64_t buffer(const struct driver *d, uint32_t id)
{
	return LAYOUT.end - (uint64_t)BUFFER_BYTES * (d->size - id);
}

static void fill(struct driver *d, uint32_t id)
{
	*AT(uint64_t, buffer(d, id)) = d->sequence[id];
	*AT(uint64_t, buffer(d, id) + 8) = 0;
}

void driver_init(struct driver *d)
{
	struct driver_layout l = LAYOUT;

	memset(d->memory + l.desc, 0, l.end - l.desc);
	d->random = d->seed | 1;
	d->nfree = d->size / 2;
	/* Split: the heads of descriptor pairs. Packed: ids, of which any will do. */
	for (uint32_t i = 0; i < d->nfree; i++)
		d->free[i] = (uint16_t)(d->packed ? i * 2 + 1 : i * 2);
	d->wrap = d->used_wrap = 1;
	d->slept = d->kicks = d->sent = d->taken = 0;
}

static void put_split(struct driver *d, uint16_t head)
{
	struct driver_layout l = LAYOUT;
	struct desc *pair = AT(struct desc, l.desc + 16ul * head);

	pair[0] = (struct desc){.addr = buffer(d, head), .len = 8, .third = NEXT, .fourth = (uint16_t)(head + 1)};
	pair[1] = (struct desc){.addr = buffer(d, head) + 8, .len = 8, .third = WRITE};
	*AT(uint16_t, l.driver + 4 + 2ul * (d->next & (d->size - 1))) = head;
	d->next++;
}

static void put_packed(struct driver *d, uint16_t id)
{
	struct desc *ring = AT(struct desc, LAYOUT.desc), *first = &ring[d->slot], *last;
	uint16_t bits = d->wrap ? AVAIL : USED;

	if (++d->slot == d->size) {
		d->slot = 0;
		d->wrap ^= 1;
	}
	last = &ring[d->slot];
	last->addr = buffer(d, id) + 8;
	last->len = 8;
	last->third = id;
	last->fourth = (uint16_t)((d->wrap ? AVAIL : USED) | WRITE);
	if (++d->slot == d->size) {
		d->slot = 0;
		d->wrap ^= 1;
	}
	first->addr = buffer(d, id);
	/* Atomic: a device that waits for the flags may read the word they are in again and again. */
	__atomic_store_n(&first->len, 8, __ATOMIC_RELAXED);
	__atomic_store_n(&first->third, id, __ATOMIC_RELAXED);
#ifdef __SANITIZE_THREAD__
	/* The core may read flags, id and length as one word; to ThreadSanitizer that is another variable. */
	__tsan_release(&first->len);
#endif
	/* driver-packed-avail: release. The rest of both descriptors and the buffers are visible before. */
	__atomic_store_n(&first->fourth, (uint16_t)(bits | NEXT), PUBLISH);
}

/* Did the position pass the event, on its way over `count` entries? (2.7.13.4, 2.8.10.1) */
static int passed(uint16_t event, uint16_t now, uint16_t count)
{
	return (uint16_t)(now - event - 1) < count;
}

static int kick_wanted(struct driver *d, uint16_t count)
{
	struct driver_layout l = LAYOUT;
	uint32_t word;
	uint16_t offset;

	/* driver-*-kick: full. What was announced is visible before the device's wish is read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!d->packed && d->event_idx)
		return passed(__atomic_load_n(AT(uint16_t, l.device + 4 + 8ul * d->size), __ATOMIC_RELAXED), d->next, count);
	if (!d->packed)
		return !(__atomic_load_n(AT(uint16_t, l.device), __ATOMIC_RELAXED) & 1);
	word = __atomic_load_n(AT(uint32_t, l.device), __ATOMIC_RELAXED);
	if ((word >> 16 & 3) != EVENT_DESC)
		return (word >> 16 & 3) != EVENT_DISABLE;
	/* Brought to this lap: an offset with the other wrap counter lies one lap behind. */
	offset = (uint16_t)(word & 0x7fff);
	if ((word >> 15 & 1) != d->wrap)
		offset = (uint16_t)(offset - d->size);
	return passed(offset, d->slot, (uint16_t)(2 * count));
}

static int send(struct driver *d)
{
	uint32_t count = (uint32_t)(1 + run_random(&d->random) % d->nfree);

	for (uint32_t i = 0; i < count; i++) {
		uint16_t id = d->free[--d->nfree];

		d->sequence[id] = ++d->sent;
		fill(d, id);
		if (d->packed)
			put_packed(d, id);
		else
			put_split(d, id);
	}
	if (!d->packed)
		/* driver-split-avail: release. Elements, descriptors and buffers are visible before. */
		__atomic_store_n(AT(uint16_t, LAYOUT.driver + 2), d->next, PUBLISH);
	if (!kick_wanted(d, (uint16_t)count))
		return RUN_DONE;
	d->kicks++;
	return run_ring_bell(d->kick) == 0 ? RUN_DONE : RUN_BROKEN;
}

/* The id and length of the next answer; 0 when there is none. */
static int next_used(struct driver *d, uint32_t *id, uint32_t *len)
{
	struct driver_layout l = LAYOUT;

	if (d->packed) {
		/* driver-packed-used: acquire. The buffer is read after; length, id and flags are one word. */
		uint64_t word = __atomic_load_n(AT(uint64_t, l.desc + 16ul * d->used_slot + 8), __ATOMIC_ACQUIRE);
		uint16_t flags = (uint16_t)(word >> 48);

		if (!(flags & AVAIL) != !d->used_wrap || !(flags & USED) != !d->used_wrap)
			return 0;
		*id = (uint16_t)(word >> 32);
		*len = (uint32_t)word;
		d->used_slot = (uint16_t)(d->used_slot + 2);
		if (d->used_slot >= d->size) {
			d->used_slot = (uint16_t)(d->used_slot - d->size);
			d->used_wrap ^= 1;
		}
		return 1;
	}
	/* driver-split-used: acquire. Element and buffer are read after. */
	if (__atomic_load_n(AT(uint16_t, l.device + 2), __ATOMIC_ACQUIRE) == d->last_used)
		return 0;
	*id = *AT(uint32_t, l.device + 4 + 8ul * (d->last_used & (d->size - 1)));
	*len = *AT(uint32_t, l.device + 8 + 8ul * (d->last_used & (d->size - 1)));
	d->last_used++;
	return 1;
}

static int take(struct driver *d, int *any)
{
	uint32_t id, len;
	uint64_t answer;

	*any = 0;
	while (next_used(d, &id, &len)) {
		if (id >= d->size || d->sequence[id] == 0)
			return wrong(d, "the id of an answer, which is not out,", id, d->size);
		if (len != 8)
			return wrong(d, "the length of an answer", len, 8);
		answer = *AT(uint64_t, buffer(d, id) + 8);
		if (answer != ~d->sequence[id])
			return wrong(d, "an answer", answer, ~d->sequence[id]);
		if (d->sequence[id] != ++d->taken)
			return wrong(d, "the request answered", d->sequence[id], d->taken);
		d->sequence[id] = 0;
		d->free[d->nfree++] = (uint16_t)id;
		*any = 1;
	}
	return RUN_DONE;
}

static int used(struct driver *d)
{
	uint16_t flags;

	if (!d->packed)
		return __atomic_load_n(AT(uint16_t, LAYOUT.device + 2), __ATOMIC_RELAXED) != d->last_used;
	flags = __atomic_load_n(AT(uint16_t, LAYOUT.desc + 16ul * d->used_slot + 14), __ATOMIC_RELAXED);
	return !(flags & AVAIL) == !d->used_wrap && !(flags & USED) == !d->used_wrap;
}

/* Say whether an interrupt is wanted. Split with event index an old event is silence. */
static void wish(struct driver *d, int wanted)
{
	struct driver_layout l = LAYOUT;
	uint32_t event = 0;

	if (!d->packed && d->event_idx && !wanted)
		return;
	if (d->packed) {
		if (!wanted)
			event = EVENT_DISABLE << 16;
		else if (d->event_idx)
			event = EVENT_DESC << 16 | (uint32_t)d->used_wrap << 15 | d->used_slot;
		__atomic_store_n(AT(uint32_t, l.driver), event, __ATOMIC_RELAXED);
	} else if (d->event_idx) {
		__atomic_store_n(AT(uint16_t, l.driver + 4 + 2ul * d->size), d->last_used, __ATOMIC_RELAXED);
	} else {
		__atomic_store_n(AT(uint16_t, l.driver), (uint16_t)!wanted, __ATOMIC_RELAXED);
	}
}

static int sleep_till_used(struct driver *d)
{
	wish(d, 1);
	/* driver-*-enable: full. The wish is visible before the ring is looked at again. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!used(d)) {
		run_delay(&d->random);
		if (run_sleep(d->interrupt, d->patience, &d->slept) != 0) {
			snprintf(d->wrong, sizeof(d->wrong), "driver: no interrupt, %llu of %llu answered, %s",
				 (unsigned long long)d->taken, (unsigned long long)d->sent,
				 used(d) ? "the next is there" : "the next is not there");
			return RUN_LOST;
		}
		wish(d, 0);
	}
	return RUN_DONE;
}

/* Have the device's lines here, so that it must fetch them back. */
static void listen(const struct driver *d)
{
	for (uint32_t i = 0; d->noise != NULL && i < NOISE_LINES; i++)
		(void)__atomic_load_n(d->noise + i * NOISE_STRIDE, __ATOMIC_RELAXED);
}

int driver_run(struct driver *d)
{
	int rc = RUN_DONE, any, over = 0;
	uint64_t turns;

	while (rc == RUN_DONE && !(over && d->taken == d->sent)) {
		over = over || (d->slept >= d->goal && __atomic_load_n(d->peer_slept, __ATOMIC_RELAXED) >= d->goal);
		if (d->nfree != 0 && !over && (d->taken == d->sent || run_random(&d->random) % 4 != 0))
			rc = send(d);
		any = 0;
		/* Awake for a random while: the rare orders need both sides awake, on two processors. */
		for (turns = run_turns(&d->random); rc == RUN_DONE && !any && turns != 0; turns--) {
			listen(d);
			rc = take(d, &any);
		}
		run_delay(&d->random);
		/* Often with room left, so that the device runs dry and sleeps too. */
		if (rc == RUN_DONE && !any && d->taken != d->sent && (d->nfree == 0 || run_random(&d->random) % 4 != 0))
			rc = sleep_till_used(d);
	}
	return rc;
}

struct driver *driver_create(uint8_t *memory, uint64_t ring, uint32_t size, uint32_t packed, uint32_t event_idx, int kick,
			     int interrupt, uint64_t goal, uint64_t *peer_slept, uint64_t seed, int patience)
{
	struct driver *d = size >= 2 && size <= DRIVER_MAX_SIZE ? calloc(1, sizeof(*d)) : NULL;

	if (d == NULL)
		return NULL;
	d->memory = memory;
	d->ring = ring;
	d->size = size;
	d->packed = packed;
	d->event_idx = event_idx;
	d->kick = kick;
	d->interrupt = interrupt;
	d->goal = goal;
	d->peer_slept = peer_slept;
	d->seed = seed;
	d->patience = patience;
	driver_init(d);
	return d;
}

void driver_results(const struct driver *d, uint64_t results[4], const char **text)
{
	results[0] = d->slept;
	results[1] = d->kicks;
	results[2] = d->sent;
	results[3] = d->taken;
	*text = d->wrong;
}

void driver_destroy(struct driver *d)
{
	free(d);
}
