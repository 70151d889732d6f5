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

#define VNET_ABI ...
#define VNET_SCRATCH ...
#define VNET_RECORD ...
#define VNET_BODY_MAX ...

struct vnet_port {
    uint64_t abi;
    uint8_t *scratch;
    uint8_t *capture;
    uint32_t capture_size;
    uint32_t capture_used;
    uint32_t snaplen;
    int32_t fd;
    uint32_t flags;
    uint32_t pending;
    uint32_t large;
    uint32_t reserved;
};

struct vnet_report {
    uint64_t packets;
    uint64_t bytes;
    uint32_t csum;
    uint32_t gso;
    uint32_t merged;
    uint32_t invalid;
    uint32_t oversized;
    uint32_t refused;
    int32_t error;
    uint32_t used;
    uint32_t broken;
    uint32_t stop;
};

int vnet_receive_at(uintptr_t map, uintptr_t batch, struct vnet_port *port, struct vnet_report *ret);
int vnet_transmit_at(uintptr_t map, uintptr_t batch, struct vnet_port *port, struct vnet_report *ret);
