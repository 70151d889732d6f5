#include "core.h"

/* A map is a pointer of another module of cffi (AccessMap.map), whose types are not these. A result that is not an error
 * becomes the return value: chains popped, or 0 / 1 for a decision.
 * SAFETY (all): the Python caller holds the AccessMap and the ChainBatch whose structs these are for as long as the call
 * lasts, and both begin with an ABI word that the core checks. */

static int vq_check(const void *map, struct virtq *q)
{
	return virtq_check(map, q);
}

static int vq_pop_batch(const void *map, struct virtq *q, struct virtio_batch *batch)
{
	int rc = virtq_pop_batch(map, q, batch);

	return rc != 0 ? rc : (int)batch->nchains;
}

static int vq_complete_batch(const void *map, struct virtq *q, struct virtio_batch *batch)
{
	int notify, rc = virtq_complete_batch(map, q, batch, &notify);

	return rc != 0 ? rc : notify;
}

static int vq_add_used(const void *map, struct virtq *q, uint16_t head, uint32_t len)
{
	return virtq_add_used(map, q, head, len);
}

static int vq_needs_notification(const void *map, struct virtq *q)
{
	int notify, rc = virtq_needs_notification(map, q, &notify);

	return rc != 0 ? rc : notify;
}

static int vq_enable_notification(const void *map, struct virtq *q)
{
	int more, rc = virtq_enable_notification(map, q, &more);

	return rc != 0 ? rc : more;
}

static int vq_disable_notification(const void *map, struct virtq *q)
{
	return virtq_disable_notification(map, q);
}

static int64_t vq_gather(const void *map, struct virtio_batch *batch, uint8_t *to, uint64_t size)
{
	uint64_t done;
	int rc = virtq_gather(map, batch, to, size, &done);

	return rc != 0 ? rc : (int64_t)done;
}

static int64_t vq_scatter(const void *map, struct virtio_batch *batch, const uint8_t *from, uint64_t size, const uint32_t *sizes)
{
	uint64_t done;
	int rc = virtq_scatter(map, batch, from, size, sizes, &done);

	return rc != 0 ? rc : (int64_t)done;
}
