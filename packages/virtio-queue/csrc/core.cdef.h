#define VIRTIO_BATCH_ABI ...
#define VIRTQ_READY ...
#define VIRTQ_EVENT_IDX ...
#define VIRTQ_INDIRECT ...
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

struct virtq {
	uint64_t desc, avail, used;
	uint16_t max_size, size;
	uint16_t next_avail, next_used;
	uint32_t flags;
	uint32_t num_added;
	struct virtq_fault fault;
	struct virtq_fault broken;
	...;
};

int vq_check(uintptr_t map, struct virtq *q);
int vq_pop_batch(uintptr_t map, struct virtq *q, uintptr_t batch);
int vq_complete_batch(uintptr_t map, struct virtq *q, uintptr_t batch);
int vq_add_used(uintptr_t map, struct virtq *q, uint16_t head, uint32_t len);
int vq_needs_notification(uintptr_t map, struct virtq *q);
int vq_enable_notification(uintptr_t map, struct virtq *q);
int vq_disable_notification(uintptr_t map, struct virtq *q);
int virtq_selftest_overrun(void);
