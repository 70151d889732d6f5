/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * stress split|packed flags|event SIZE SLEEPS SEED PATIENCE_MS
 *
 * The driver of driver.c and a device on the C core, a thread each, until both have slept SLEEPS times. One line of JSON;
 * exit status: a RUN_* value. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "core.h"
#include "driver.h"

#define BATCH 16u

struct device {
	struct vmm_map map;
	struct virtq queue;
	int kick, interrupt, patience;
	uint32_t noise[NOISE_LINES * NOISE_STRIDE];
	uint32_t stop; /* set by the other thread, before a last kick */
	uint64_t slept, interrupts, answered, random;
	int result;
	char wrong[120];
};

static int wrong(struct device *d, int result, const char *what, int64_t value)
{
	snprintf(d->wrong, sizeof(d->wrong), "device: %s: %lld", what, (long long)value);
	return d->result = result;
}

static int answer(struct device *d, struct virtio_chain *c, const struct virtio_seg *segs)
{
	uint64_t number = 0, complement;

	if (c->error != 0 || c->nsegs != 2 || c->readable != 8 || c->writable != 8)
		return wrong(d, RUN_WRONG, "a chain is not what was sent", c->error);
	if (vmm_read(&d->map, segs[c->first_seg].addr, &number, 8) != 0 || number != ++d->answered)
		return wrong(d, RUN_WRONG, "sequence number", (int64_t)number);
	complement = ~number;
	if (vmm_write(&d->map, segs[c->first_seg + 1].addr, &complement, 8) != 0)
		return wrong(d, RUN_BROKEN, "vmm_write", -1);
	c->written = 8;
	return 0;
}

static int drain(struct device *d, struct virtio_batch *b)
{
	uint64_t turns = run_turns(&d->random) / 4; /* awake for a random while, as the driver */
	int rc, notify;

	for (;;) {
		rc = virtq_pop_batch(&d->map, &d->queue, b);
		if (rc != 0)
			return wrong(d, RUN_BROKEN, "virtq_pop_batch", rc);
		if (b->nchains == 0 && turns-- == 0)
			return 0;
		if (b->nchains == 0)
			continue;
		for (uint32_t i = 0; i < b->nchains; i++)
			if (answer(d, &b->chains[i], b->segs) != 0)
				return d->result;
		rc = virtq_complete_batch(&d->map, &d->queue, b, &notify);
		if (rc != 0)
			return wrong(d, RUN_BROKEN, "virtq_complete_batch", rc);
		if (notify) {
			d->interrupts++;
			if (run_ring_bell(d->interrupt) != 0)
				return wrong(d, RUN_BROKEN, "interrupt", -1);
		}
		run_delay(&d->random);
	}
}

static void *device_run(void *argument)
{
	struct device *d = argument;
	struct virtio_chain chains[BATCH];
	struct virtio_seg segs[DRIVER_MAX_SIZE];
	struct virtio_batch batch = {.abi = VIRTIO_BATCH_ABI_WORD, .max_chains = BATCH, .max_segs = DRIVER_MAX_SIZE,
				     .chains = chains, .segs = segs};
	int more = 1, rc = 0;

	while (rc == 0 && !__atomic_load_n(&d->stop, __ATOMIC_ACQUIRE)) {
		rc = virtq_disable_notification(&d->map, &d->queue);
		if (rc == 0)
			rc = drain(d, &batch);
#ifdef DEVICE_DAWDLES
		run_delay(&d->random); /* whoever sends now, unannounced, relies on the second look */
#endif
		for (uint32_t i = 0; i < NOISE_LINES; i++)
			__atomic_store_n(&d->noise[i * NOISE_STRIDE], i, __ATOMIC_RELAXED);
		if (rc == 0)
			rc = virtq_enable_notification(&d->map, &d->queue, &more);
		if (rc == 0 && !more) {
			run_delay(&d->random);
			if (run_sleep(d->kick, d->patience, &d->slept) != 0)
				rc = wrong(d, RUN_LOST, "no kick, answered", (int64_t)d->answered);
		}
	}
	if (rc != 0 && d->result == 0)
		wrong(d, RUN_BROKEN, "the core", rc);
	return NULL;
}

static struct virtq queue_on(const struct driver *d, struct driver_layout l)
{
	struct virtq queue = {.desc = l.desc, .avail = l.driver, .used = l.device, .max_size = DRIVER_MAX_SIZE,
			      .size = (uint16_t)d->size, .flags = VIRTQ_READY | (d->event_idx ? VIRTQ_EVENT_IDX : 0)};
#ifdef VIRTQ_PACKED
	static struct virtq_held held[DRIVER_MAX_SIZE];
	static uint16_t order[DRIVER_MAX_SIZE];

	if (d->packed) {
		queue.flags |= VIRTQ_PACKED;
		queue.next_avail = queue.next_used = VIRTQ_WRAP;
		queue.held = held;
		queue.order = order;
		queue.ids = DRIVER_MAX_SIZE;
		queue.order_mask = DRIVER_MAX_SIZE - 1;
	}
#endif
	return queue;
}

static int run(struct driver *d, struct device *v)
{
	struct driver_layout l = driver_layout(d->ring, d->size, d->packed);
	uint64_t bytes = (l.end + 4095) & ~UINT64_C(4095);
	/* Not tracked: marking a page is a read-modify-write, which on x86 would do the work of a missing fence. */
	struct vmm_region region = {.base = 0, .size = bytes};
	pthread_t thread;
	int rc;

	if (posix_memalign((void **)&region.host, 4096, bytes) != 0)
		return RUN_BROKEN;
	d->memory = region.host;
	v->map = (struct vmm_map){.abi = VMM_MAP_ABI, .count = 1, .regions = &region};
	v->queue = queue_on(d, l);
	driver_init(d);
	if (pthread_create(&thread, NULL, device_run, v) != 0)
		return RUN_BROKEN;
	rc = driver_run(d);
	__atomic_store_n(&v->stop, 1, __ATOMIC_RELEASE);
	run_ring_bell(v->kick);
	pthread_join(thread, NULL);
	free(region.host);
	return rc;
}

int main(int argc, char **argv)
{
	static struct driver d;
	static struct device v;
	int rc;

	if (argc != 7)
		return RUN_BROKEN;
	d.packed = strcmp(argv[1], "packed") == 0;
	d.event_idx = strcmp(argv[2], "event") == 0;
	d.size = (uint32_t)strtoul(argv[3], NULL, 0);
	d.goal = strtoull(argv[4], NULL, 0);
	d.seed = strtoull(argv[5], NULL, 0) * 2 + 1;
	v.random = d.seed + 2;
	d.patience = v.patience = atoi(argv[6]);
	d.ring = 0x1000;
	d.peer_slept = &v.slept;
	d.noise = v.noise;
	d.kick = v.kick = eventfd(0, EFD_NONBLOCK);
	d.interrupt = v.interrupt = eventfd(0, EFD_NONBLOCK);
	if (d.size < 2 || d.size > DRIVER_MAX_SIZE || d.kick < 0 || d.interrupt < 0)
		return RUN_BROKEN;
	rc = run(&d, &v);
	printf("{\"result\": %d, \"driver_slept\": %llu, \"device_slept\": %llu, \"kicks\": %llu, \"interrupts\": %llu, "
	       "\"sent\": %llu, \"answered\": %llu, \"taken\": %llu, \"wrong\": \"%s%s%s\"}\n",
	       rc != 0 ? rc : v.result, (unsigned long long)d.slept, (unsigned long long)v.slept,
	       (unsigned long long)d.kicks, (unsigned long long)v.interrupts, (unsigned long long)d.sent,
	       (unsigned long long)v.answered, (unsigned long long)d.taken, d.wrong, d.wrong[0] && v.wrong[0] ? "; " : "",
	       v.wrong);
	return rc != 0 ? rc : v.result;
}
