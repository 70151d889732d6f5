/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 * See core.h: the bytes of a whole batch in one go. */
#define _GNU_SOURCE
#include "core.h"

/* Where a copy stands: the region of the segment before, which is most often that of the next one too. */
struct stream {
	const struct vmm_map *map;
	const struct vmm_region *region;
	struct vmm_marks marks; /* pages that were written */
};

/* The host address of all of a segment, or NULL when it does not lie in one plain region. */
static inline uint8_t *host_of(struct stream *s, const struct virtio_seg *seg)
{
	const struct vmm_region *region = s->region;
	uint64_t offset;

	if (region == NULL || seg->addr - region->base >= region->size)
		region = vmm_find(s->map, seg->addr);
	if (region == NULL || region->flags != 0)
		return NULL;
	s->region = region;
	offset = seg->addr - region->base;
	/* SAFETY: [offset, offset + len) is inside the region, whose size bytes are mapped at host. */
	return seg->len <= region->size - offset ? region->host + offset : NULL;
}

static int check(const struct vmm_map *map, const struct virtio_batch *b)
{
	int rc = vmm_map_check(map);

	if (rc == 0)
		rc = virtio_batch_check(b);
	if (rc != 0)
		return rc;
	for (uint32_t i = 0; i < b->nchains; i++)
		if (b->chains[i].first_seg > b->nsegs || b->chains[i].nsegs > b->nsegs - b->chains[i].first_seg)
			return -EINVAL;
	return 0;
}

int virtq_gather(const struct vmm_map *map, const struct virtio_batch *b, uint8_t *to, uint64_t size, uint64_t *ret)
{
	struct stream s = {.map = map};
	uint64_t done = 0;
	int rc = check(map, b);

	*ret = 0;
	for (uint32_t i = 0; rc == 0 && i < b->nchains; i++) {
		const struct virtio_seg *seg = b->segs + b->chains[i].first_seg, *end = seg + b->chains[i].nsegs;

		/* Readable segments come first; a broken chain has none that may be used. */
		for (; b->chains[i].error == 0 && seg != end && !seg->writable; seg++) {
			const uint8_t *host;

			if (seg->len > size - done)
				return -ENOBUFS;
			host = seg->len == 0 ? NULL : host_of(&s, seg);
			if (host != NULL)
				vmm_copy_in(to + done, host, seg->len);
			else if ((rc = vmm_read(map, seg->addr, to + done, seg->len)) != 0)
				return rc;
			done += seg->len;
		}
	}
	*ret = done;
	return rc;
}

/* Bytes that chain i is to get: as many as `sizes` says, else as many as it takes and there are. */
static inline uint64_t share(const struct virtio_chain *c, const uint32_t *sizes, uint32_t i, uint64_t left)
{
	if (sizes != NULL)
		return sizes[i];
	return c->writable < left ? c->writable : left;
}

static int shares_fit(const struct virtio_batch *b, uint64_t size, const uint32_t *sizes)
{
	for (uint32_t i = 0; sizes != NULL && i < b->nchains; i++) {
		if (sizes[i] > b->chains[i].writable || sizes[i] > size)
			return -EINVAL;
		size -= sizes[i];
	}
	return 0;
}

/* The processor's own prefetching ends with a page, so a copy waits in each page for its translation and first lines: have
 * those of the next chain's buffer fetched while this chain's bytes move. Only for what is written; what is read loses as
 * much by it as it wins. */
enum { AHEAD = 2048, LINE = 64 };
static inline void prefetch(const struct stream *s, const struct virtio_batch *b, uint32_t i)
{
	struct stream ahead = {.map = s->map, .region = s->region};
	const struct virtio_seg *seg, *end;
	const uint8_t *host;

	if (i == b->nchains)
		return;
	seg = b->segs + b->chains[i].first_seg;
	end = seg + b->chains[i].nsegs;
	while (seg != end && !seg->writable)
		seg++;
	host = seg == end ? NULL : host_of(&ahead, seg);
	for (uint32_t at = 0; host != NULL && at < AHEAD && at < seg->len; at += LINE)
		__builtin_prefetch(host + at, 1);
}

static int fill(struct stream *s, const struct virtio_batch *b, const struct virtio_chain *c, const uint8_t *from,
		uint64_t count)
{
	const struct virtio_seg *seg = b->segs + c->first_seg, *end = seg + c->nsegs;

	for (; count != 0 && seg != end; seg++) {
		uint64_t part = seg->len < count ? seg->len : count;
		uint8_t *host;
		int rc;

		if (!seg->writable || part == 0)
			continue;
		host = host_of(s, seg);
		if (host != NULL) {
			vmm_copy_out(host, from, part);
			vmm_marks_add(&s->marks, s->map, s->region, seg->addr - s->region->base, part);
		} else if ((rc = vmm_write(s->map, seg->addr, from, part)) != 0) {
			return rc;
		}
		from += part;
		count -= part;
	}
	return 0;
}

int virtq_scatter(const struct vmm_map *map, struct virtio_batch *b, const uint8_t *from, uint64_t size,
		  const uint32_t *sizes, uint64_t *ret)
{
	struct stream s;
	uint64_t done = 0;
	int rc = check(map, b);

	*ret = 0;
	s.map = map;
	s.region = NULL;
	s.marks.used = 0;
	if (rc == 0)
		rc = shares_fit(b, size, sizes);
	for (uint32_t i = 0; rc == 0 && i < b->nchains; i++) {
		struct virtio_chain *c = &b->chains[i];
		uint64_t count = share(c, sizes, i, size - done);

		/* used.len has 32 bits; a chain with 2^32 writable bytes is filled but for the last one. */
		count = count > UINT32_MAX ? UINT32_MAX : count;
		prefetch(&s, b, i + 1);
		rc = fill(&s, b, c, from + done, count);
		if (rc != 0)
			break;
		c->written = (uint32_t)count;
		done += count;
	}
	vmm_marks_flush(&s.marks);
	*ret = done;
	return rc;
}
