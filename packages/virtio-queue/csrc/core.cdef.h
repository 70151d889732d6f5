#define VIRTIO_BATCH_ABI ...
#define VIRTQ_READY ...
#define VIRTQ_EVENT_IDX ...
#define VIRTQ_INDIRECT ...
#define VIRTQ_PACKED ...
#define VIRTQ_COMPATIBLE ...
#define VIRTQ_IN_ORDER ...
#define VIRTQ_WRAP ...
#define VIRTQ_NO_HEAD ...

struct virtio_seg {
	uint64_t addr;
	uint32_t len;
	uint32_t writable;
	...;
};

struct virtio_chain {
	uint32_t first_seg;
	uint16_t nsegs;
	uint16_t head;
	uint32_t written;
	int32_t error;
	uint64_t readable;
	uint64_t writable;
	...;
};

struct virtio_batch {
	uint64_t abi;
	uint32_t max_chains, max_segs;
	uint32_t nchains, nsegs;
	struct virtio_chain *chains;
	struct virtio_seg *segs;
	...;
};

struct virtq_fault {
	int32_t error;
	uint32_t head;
	uint32_t position;
	uint32_t known;
	uint64_t value;
	uint64_t limit;
	...;
};

struct virtq_counters {
	uint64_t chains;
	uint64_t tables;
	uint64_t wraps;
	uint64_t notified;
	uint64_t suppressed;
	...;
};

struct virtq_held {
	uint32_t order;
	uint16_t slots;
	uint16_t chosen;
	...;
};

struct virtq {
	uint64_t desc, avail, used;
	uint16_t max_size, size;
	uint16_t next_avail, next_used;
	uint32_t flags;
	uint32_t num_added;
	uint32_t popped;
	uint32_t in_flight, busy;
	uint32_t ids;
	uint32_t order_mask;
	struct virtq_held *held;
	uint16_t *order;
	struct virtq_fault fault;
	struct virtq_fault broken;
	struct virtq_counters counters;
	...;
};

int vq_check(const void *map, struct virtq *q);
int vq_pop_batch(const void *map, struct virtq *q, struct virtio_batch *batch);
int vq_complete_batch(const void *map, struct virtq *q, struct virtio_batch *batch);
int vq_add_used(const void *map, struct virtq *q, uint16_t head, uint32_t len);
int virtq_undo_pop(struct virtq *q, uint32_t count);
int vq_needs_notification(const void *map, struct virtq *q);
int vq_enable_notification(const void *map, struct virtq *q);
int vq_disable_notification(const void *map, struct virtq *q);
int64_t vq_gather(const void *map, struct virtio_batch *batch, uint8_t *to, uint64_t size);
int64_t vq_scatter(const void *map, struct virtio_batch *batch, const uint8_t *from, uint64_t size, const uint32_t *sizes);
int virtq_selftest_overrun(void);
