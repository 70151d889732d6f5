#define VMM_ACCESS_ABI ...
#define VMM_MAP_ABI ...
#define VMM_REGION_READONLY ...
#define VMM_REGION_WRITEONLY ...
#define VMM_MAP_TRANSLATED ...
#define VMM_READ ...
#define VMM_WRITE ...
#define VMM_READ_WRITE ...
#define VMM_MEM_SHARED ...
#define VMM_MEM_READONLY ...
#define VMM_MEM_RESERVE ...
#define VMM_MEM_POISON ...
#define VMM_MEM_OR ...
#define VMM_MEM_AND ...
#define VMM_MEM_ADD ...
#define VMM_MEM_EXCHANGE ...

struct vmm_region {
    uint64_t base, size;
    uint8_t *host;
    uint64_t *dirty;
    uint32_t dirty_shift, flags;
    uint64_t dirty_base;
};
struct vmm_map {
    uint64_t abi, count;
    const struct vmm_region *regions;
    uint64_t flags;
};
struct vmm_mapping {
    uint8_t *host;
    uint64_t size;
    uint8_t *reserve;
    uint64_t reserved;
};
struct vmm_run {
    uint64_t first, count;
};
struct vmm_range {
    uint64_t gpa, len;
};
struct vmm_vector {
    uint64_t count, size;
    const uint64_t *gpa;
    uint8_t *values;
    uint64_t done;
    uint32_t *hints;
};

struct vmm_vector_call {
    const struct vmm_map *map;
    struct vmm_vector *vector;
};

int vmm_map_check(const struct vmm_map *map);
int vmm_check(const struct vmm_map *map, uint64_t gpa, uint64_t len, int access);
int vmm_read(const struct vmm_map *map, uint64_t gpa, void *dst, uint64_t len);
int vmm_write(const struct vmm_map *map, uint64_t gpa, const void *src, uint64_t len);
void vmm_mark_dirty(const struct vmm_map *map, uint64_t gpa, uint64_t len);

int vmm_mem_map(uint64_t size, uint64_t base, uint64_t align, int fd, uint64_t offset, uint32_t flags, struct vmm_mapping *ret);
int vmm_mem_unmap(uint8_t *reserve, uint64_t reserved);
int vmm_mem_backing_page(int fd, uint64_t *ret);
int vmm_mem_prefault(uint8_t *host, uint64_t size, int write);
int vmm_mem_discard(uint8_t *host, uint64_t size, int fd, uint64_t offset, int shared);
uint64_t vmm_mem_load(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order);
int vmm_mem_load_error(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order);
int vmm_mem_store(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order, uint64_t value);
int vmm_mem_modify(const struct vmm_map *map, uint64_t gpa, uint64_t size, int order, int op, uint64_t value, uint64_t expected, uint64_t *ret);
int vmm_mem_load_vector(const struct vmm_map *map, struct vmm_vector *v, int order, uint64_t first);
int vmm_mem_store_vector(const struct vmm_map *map, struct vmm_vector *v, int order, uint64_t first);
bool mem_load_relaxed(const struct vmm_vector_call *call); /* keeps the GIL */
bool mem_store_relaxed(const struct vmm_vector_call *call); /* keeps the GIL */
uint64_t vmm_mem_reach(const struct vmm_map *map, uint64_t gpa, uint64_t len, int access);
int vmm_mem_fill(const struct vmm_map *map, uint64_t gpa, uint64_t len, int byte);
int vmm_mem_copy(const struct vmm_map *map, uint64_t dst, uint64_t src, uint64_t len);
int vmm_mem_compare(const struct vmm_map *map, uint64_t gpa, const uint8_t *data, uint64_t other, uint64_t len, uint64_t *ret);
int vmm_mem_find(const struct vmm_map *map, uint64_t gpa, uint64_t len, const uint8_t *needle, uint64_t size, uint8_t *scratch, uint64_t room, uint64_t *ret);
int vmm_mem_check_ranges(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, int access, uint64_t *ret);
int vmm_mem_gather(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, uint8_t *dst, uint64_t *ret);
int vmm_mem_scatter(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, const uint8_t *src, uint64_t *ret);
int vmm_mem_transfer(const struct vmm_map *map, const struct vmm_range *ranges, uint64_t count, uint64_t skip, int fd, int64_t offset, int into_memory, int once, uint64_t *ret);

void vmm_bits_set(uint64_t *words, uint64_t bits, uint64_t first, uint64_t count);
void vmm_bits_clear(uint64_t *words, uint64_t bits, uint64_t first, uint64_t count);
int vmm_bits_test(const uint64_t *words, uint64_t bits, uint64_t bit);
void vmm_bits_take(uint64_t *words, uint64_t bits, uint64_t *ret);
uint64_t vmm_bits_count(const uint64_t *words, uint64_t bits);
void vmm_bits_merge(uint64_t *words, uint64_t bits, uint32_t shift, const void *src, uint64_t src_bits, uint32_t src_shift);
uint64_t vmm_bits_runs(const uint64_t *words, uint64_t bits, uint64_t from, uint64_t max, struct vmm_run *ret);

int vmm_mem_selftest_overrun(void);
