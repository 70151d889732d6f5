/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * A driver of split and packed rings that sleeps whenever it may: it sends while there is room, takes answers, and
 * waits on an eventfd for the device's interrupt. Each request is two descriptors: 8 bytes to read, its sequence number,
 * and 8 bytes to write, where the device puts the complement. Nothing of it is the device core's code. */
#ifndef WAKEUPS_DRIVER_H
#define WAKEUPS_DRIVER_H

#include <stdint.h>

#define DRIVER_MAX_SIZE 1024u

/* A store waits behind those before it, and one to a line that the other processor has takes long. With a few of them
 * in front, a store that no fence follows is late by so much that the other side has time to look and miss it. */
#define NOISE_LINES 4u
#define NOISE_STRIDE 16u /* words of a cache line */

/* Results of driver_run and device_run. */
enum {
	RUN_DONE = 0,
	RUN_LOST = 1,    /* nothing came for as long as the watchdog waits */
	RUN_WRONG = 2,   /* an answer, an element or a sequence number is not what it must be; see wrong */
	RUN_BROKEN = 3,  /* the core or the kernel refused something; see wrong */
};

struct driver {
	uint8_t *memory; /* the guest's, address 0 */
	uint64_t ring;   /* where the three parts lie, see driver_layout */
	uint32_t size;
	uint32_t packed, event_idx;
	int kick, interrupt;  /* eventfds, non-blocking */
	uint64_t goal;        /* sleeps of each side */
	uint64_t *peer_slept; /* the device's count; read while it runs */
	uint32_t *noise;      /* NULL, or NOISE_LINES cache lines that the device writes before it asks for a kick */
	uint64_t seed;
	int patience; /* milliseconds until a wake-up counts as lost */

	/* Results. */
	uint64_t slept, kicks, sent, taken;
	char wrong[120];

	/* Private. */
	uint64_t random;
	uint16_t next, last_used;  /* split: free-running indices */
	uint16_t slot, used_slot;  /* packed: positions, each with its wrap counter */
	uint16_t wrap, used_wrap;
	uint64_t sequence[DRIVER_MAX_SIZE]; /* of the request of each head or id; 0: free */
	uint16_t free[DRIVER_MAX_SIZE];
	uint32_t nfree;
};

struct driver_layout {
	uint64_t desc, driver, device, end;
};

/* Addresses of descriptor table (or ring), driver area and device area; the buffers lie behind them, to `end`. */
struct driver_layout driver_layout(uint64_t ring, uint32_t size, uint32_t packed);

/* Zero the ring and begin. The device may start when this has returned. */
void driver_init(struct driver *d);

/* Until both sides have slept `goal` times and all answers are there; a RUN_* value. */
int driver_run(struct driver *d);

/* For callers that cannot see the struct. NULL when there is no memory. */
struct driver *driver_create(uint8_t *memory, uint64_t ring, uint32_t size, uint32_t packed, uint32_t event_idx, int kick,
			     int interrupt, uint64_t goal, uint64_t *peer_slept, uint64_t seed, int patience);
void driver_results(const struct driver *d, uint64_t results[4], const char **wrong);
void driver_destroy(struct driver *d);

/* Shared with device.c. */
uint64_t run_random(uint64_t *state);
void run_delay(uint64_t *state);
/* How often to look again before sleeping. The rare orders need one side that goes to sleep just when the other, awake
 * because it looked for long, answers: so few times, or more than a wake-up of the other side takes. */
uint64_t run_turns(uint64_t *state);
/* 0 after the eventfd was readable and has been read; 1 when patience ran out. *slept counts if it was not at once. */
int run_sleep(int fd, int patience, uint64_t *slept);
int run_ring_bell(int fd);

#endif
