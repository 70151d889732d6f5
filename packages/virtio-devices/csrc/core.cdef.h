#define VBLK_ABI ...
#define VBLK_MAX_RANGES ...

struct vblk_disk {
    uint64_t abi;
    uint64_t capacity;
    int32_t fd;
    uint32_t flags;
    uint32_t max_discard_sectors;
    uint32_t max_discard_ranges;
    uint32_t max_zeroes_sectors;
    uint32_t max_zeroes_ranges;
    uint8_t id[20];
    uint32_t has_id;
};

struct vblk_report {
    uint64_t read_bytes;
    uint64_t written_bytes;
    uint64_t error_offset;
    int32_t error;
    uint32_t error_type;
    uint32_t errors;
    uint32_t broken;
};

int vblk_process_at(uintptr_t map, uintptr_t batch, const struct vblk_disk *disk, struct vblk_report *ret);
int vblk_selftest_overrun(void);
