#include "core.h"

/* Python hands addresses over as integers (AccessMap.address, ChainBatch.address): a cffi cast per call costs more
 * than the call. A result that is not an error becomes the return value: chains popped, or 0 / 1 for a decision. */

/* SAFETY (all): the Python caller holds the AccessMap and the ChainBatch whose addresses these are for as long as
 * the call lasts, and both begin with an ABI word that the core checks. */
#define MAP(address) ((const struct vmm_map *)(address))
#define BATCH(address) ((struct virtio_batch *)(address))

static int vq_check(uintptr_t map, struct virtq *q)
{
	return virtq_check(MAP(map), q);
}

static int vq_pop_batch(uintptr_t map, struct virtq *q, uintptr_t batch)
{
	int rc = virtq_pop_batch(MAP(map), q, BATCH(batch));

	return rc != 0 ? rc : (int)BATCH(batch)->nchains;
}

static int vq_complete_batch(uintptr_t map, struct virtq *q, uintptr_t batch)
{
	int notify, rc = virtq_complete_batch(MAP(map), q, BATCH(batch), &notify);

	return rc != 0 ? rc : notify;
}

static int vq_add_used(uintptr_t map, struct virtq *q, uint16_t head, uint32_t len)
{
	return virtq_add_used(MAP(map), q, head, len);
}

static int vq_needs_notification(uintptr_t map, struct virtq *q)
{
	int notify, rc = virtq_needs_notification(MAP(map), q, &notify);

	return rc != 0 ? rc : notify;
}

static int vq_enable_notification(uintptr_t map, struct virtq *q)
{
	int more, rc = virtq_enable_notification(MAP(map), q, &more);

	return rc != 0 ? rc : more;
}

static int vq_disable_notification(uintptr_t map, struct virtq *q)
{
	return virtq_disable_notification(MAP(map), q);
}

static int64_t vq_gather(uintptr_t map, uintptr_t batch, uint8_t *to, uint64_t size)
{
	uint64_t done;
	int rc = virtq_gather(MAP(map), BATCH(batch), to, size, &done);

	return rc != 0 ? rc : (int64_t)done;
}

static int64_t vq_scatter(uintptr_t map, uintptr_t batch, const uint8_t *from, uint64_t size, const uint32_t *sizes)
{
	uint64_t done;
	int rc = virtq_scatter(MAP(map), BATCH(batch), from, size, sizes, &done);

	return rc != 0 ? rc : (int64_t)done;
}
