/* A third party's C code on guest memory: it knows vmm_memory by the public header alone.
 *
 * Fletcher-32 over a range of guest memory, read in place: no byte goes through Python, and none is copied but the
 * piece under the sum (a guest may write meanwhile: what is summed is what was read, once). */
#include <vmm_access.h>

#define PIECE 256u

int checksum_fletcher32(uintptr_t address, uint64_t gpa, uint64_t len, uint32_t *ret)
{
    /* SAFETY: the caller holds the AccessMap whose address this is; its first word says whether we understand it. */
    const struct vmm_map *map = (const struct vmm_map *)address;
    uint32_t low = 0xffff, high = 0xffff;
    uint16_t words[PIECE / 2];
    int rc = vmm_map_check(map);

    if (rc != 0)
        return rc;
    if (len % 2 != 0)
        return -EINVAL;
    rc = vmm_check(map, gpa, len, VMM_READ); /* a wrong range is refused before the work begins */
    while (rc == 0 && len != 0) {
        uint64_t part = len < PIECE ? len : PIECE;

        rc = vmm_read(map, gpa, words, part);
        for (uint64_t i = 0; rc == 0 && i < part / 2; i++) {
            low = (low + words[i]) % 65535;
            high = (high + low) % 65535;
        }
        gpa += part;
        len -= part;
    }
    *ret = high << 16 | low;
    return rc;
}
