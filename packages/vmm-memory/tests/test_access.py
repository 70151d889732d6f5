"""The table for C: ABI, lifetime, fork, and the public header in a program of its own."""

import gc
import os
import random
import subprocess

import pytest
from vmm_memory import (
    FileOffset,
    ForkedError,
    GuestMemoryMmap,
    GuestRegionMmap,
    get_include,
)
from vmm_memory._ffi import ffi, lib
from vmm_memory.testing import guarded_region

PAGE = 4096

# A stand-in for a sibling's C core: it knows guest memory only by the public header.
PROGRAM = r"""
#include "vmm_access.h"
#include <assert.h>
#include <stdio.h>

static _Alignas(4096) uint8_t low[8192], high[4096], rom[4096];
static uint64_t dirty[2][1];

int main(void)
{
    const struct vmm_region regions[] = {
        {0x1000, 8192, low, dirty[0], 12, 0, 0},
        {0x3000, 4096, rom, NULL, 12, VMM_REGION_READONLY, 0},
        {UINT64_C(0xfffffffffffff000), 4096, high, dirty[1], 12, 0, 0},
    };
    struct vmm_map map = {VMM_MAP_ABI, 3, regions, 0};
    struct iovec iov[4];
    uint8_t bytes[16], *host;
    uint64_t word;
    uint32_t half;
    size_t n;

    assert(vmm_map_check(&map) == 0);
    map.abi++;
    assert(vmm_map_check(&map) == -EPROTO && vmm_map_check(NULL) == -EPROTO);
    map.abi--;
    assert(vmm_find(&map, 0xfff) == NULL && vmm_find(&map, 0x1000) == &regions[0]);
    assert(vmm_find(&map, 0x3fff) == &regions[1] && vmm_find(&map, 0x4000) == NULL);
    assert(vmm_find(&map, UINT64_MAX) == &regions[2]);

    assert(vmm_get(&map, 0x1ffe, 2, 1, &host) == 0 && host == low + 0xffe && dirty[0][0] == 0);
    assert(vmm_get(&map, 0x2fff, 2, 0, &host) == -EFAULT);
    assert(vmm_get(&map, 0x3000, 1, 1, &host) == -EACCES);
    assert(vmm_get(&map, UINT64_MAX, 2, 0, &host) == -ERANGE);
    assert(vmm_check(&map, 0x1000, 0x3000, 0) == 0 && vmm_check(&map, 0x1000, 0x3000, 1) == -EACCES);
    assert(vmm_check(&map, 0x1000, 0x3001, 0) == -EFAULT && vmm_check(&map, 0, 0, 1) == 0);

    assert(vmm_write(&map, 0x1ffd, "abcdef", 6) == 0 && dirty[0][0] == 3);
    assert(vmm_read(&map, 0x1ffd, bytes, 6) == 0 && memcmp(bytes, "abcdef", 6) == 0);
    assert(vmm_write(&map, 0x2ffe, "1234", 4) == -EACCES && low[8190] == 0 && dirty[0][0] == 3);
    assert(vmm_write(&map, UINT64_MAX - 3, "last", 4) == 0 && memcmp(high + 4092, "last", 4) == 0);

    assert(vmm_iov(&map, 0x2ff0, 0x20, 0, iov, 4, &n) == 0 && n == 2);
    assert(iov[0].iov_base == low + 8176 && iov[0].iov_len == 16);
    assert(iov[1].iov_base == rom && iov[1].iov_len == 16);
    assert(vmm_iov(&map, 0x2ff0, 0x20, 0, iov, 1, &n) == -ENOSPC && n == 0);
    assert(vmm_iov(&map, 0x2ff0, 0x20, 1, iov, 4, &n) == -EACCES);
    assert(vmm_iov(&map, 7, 0, 1, iov, 4, &n) == 0 && n == 0);

    dirty[0][0] = dirty[1][0] = 0;
    assert(vmm_store64(&map, 0x2008, VMM_ORDER_RELEASE, 0x1122334455667788) == 0 && dirty[0][0] == 2);
    assert(vmm_load64(&map, 0x2008, VMM_ORDER_ACQUIRE, &word) == 0 && word == 0x1122334455667788);
    assert(vmm_load32(&map, 0x2008, VMM_ORDER_SEQ_CST, &half) == 0 && half == 0x55667788);
    assert(vmm_load32(&map, 0x200a, VMM_ORDER_RELAXED, &half) == -EINVAL);
    assert(vmm_load32(&map, 0x2008, VMM_ORDER_RELEASE, &half) == -EINVAL);
    assert(vmm_store32(&map, 0x3000, VMM_ORDER_RELAXED, 1) == -EACCES);
    assert(vmm_store32(&map, 0x5000, VMM_ORDER_RELAXED, 1) == -EFAULT);

    dirty[0][0] = 0;
    vmm_mark_dirty(&map, 0, UINT64_MAX);
    assert(dirty[0][0] == 3 && dirty[1][0] == 1);
    puts("all right");
    return 0;
}
"""


@pytest.mark.parametrize("flags", [["-O2"], ["-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all"]])
def test_header_in_a_plain_c_program(tmp_path, flags):
    """The shipped header compiles without warnings outside the package, and keeps its promises there."""
    source = tmp_path / "consumer.c"
    source.write_text(PROGRAM)
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", *flags, f"-I{get_include()}"]
    subprocess.run([*command, str(source), "-o", str(tmp_path / "consumer")], check=True)
    assert subprocess.run([tmp_path / "consumer"], check=True, capture_output=True).stdout == b"all right\n"


def test_table_is_what_c_expects():
    """The address is that of a checked struct vmm_map with the regions in order."""
    memory = GuestMemoryMmap([guarded_region(0x8000, PAGE), GuestRegionMmap.memfd(0, PAGE)])
    table = memory.access_map()
    # SAFETY: the address is that of table's own struct, and table is alive.
    seen = ffi.cast("struct vmm_map *", table.address)
    assert lib.vmm_map_check(seen) == 0
    assert [seen.regions[i].base for i in range(seen.count)] == [0, 0x8000]
    assert [bool(seen.regions[i].dirty) for i in range(seen.count)] == [False, True]
    assert memory.access_map() is table


def test_read_only_regions_are_flagged(tmp_path):
    """C sees VMM_REGION_READONLY."""
    path = tmp_path / "rom"
    path.write_bytes(bytes(PAGE))
    with path.open("rb") as file:
        region = GuestRegionMmap.from_file(0, PAGE, FileOffset(file.fileno()), read_only=True)
    table = GuestMemoryMmap([region]).access_map()
    assert table.map.regions[0].flags == lib.VMM_REGION_READONLY


def test_table_keeps_memory_alive():
    """The address works when map and regions have been dropped."""
    table = GuestMemoryMmap([guarded_region(0, PAGE)]).access_map()
    gc.collect()
    assert lib.vmm_write(table.map, 16, b"alive", 5) == 0
    assert bytes(table.rows[0].region.get_slice(16, 5).view) == b"alive"


def in_child(body):
    """Run body in a forked child; its exit status (0: body returned true)."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if body() else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def raises_forked(call):
    """Does the call raise ForkedError?"""
    try:
        call()
    except ForkedError:
        return True
    return False


def test_forked_child_gets_an_exception():
    """Every access says ForkedError there, C code gets -EFAULT, and the parent goes on."""
    memory = GuestMemoryMmap.from_ranges([(0, PAGE)])
    table = memory.access_map()
    calls = [
        lambda: memory.read(0, 1),
        lambda: memory.write(0, b"x"),
        lambda: memory.load(0, 4),
        lambda: memory.store(0, 4, 1),
        lambda: memory.get_slice(0, 4),
        lambda: memory.read_from_fd(0, 0, 1),
    ]
    assert in_child(lambda: all(raises_forked(call) for call in calls)) == 0
    assert in_child(lambda: not memory.check_range(0, 1) and lib.vmm_check(table.map, 0, 1, 0) < 0) == 0
    memory.write(0, b"parent")
    assert memory.read(0, 6) == b"parent"


def test_forked_child_does_not_unmap_by_address():
    """A region that dies in the child leaves alone what lies at its address there."""
    region = GuestRegionMmap.anonymous(0, 16 * PAGE)
    keep = [region]
    host = region.host_address
    del region

    def body():
        out = ffi.new("struct vmm_mapping *")
        others = []
        for _ in range(64):
            assert lib.vmm_mem_map(16 * PAGE, 0, PAGE, -1, 0, 0, out) == 0
            others.append(int(ffi.cast("uintptr_t", out.host)))
        keep.clear()
        gc.collect()
        with open("/proc/self/maps") as maps:
            ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in maps]
        return host and all(any(low <= address < high for low, high in ranges) for address in others)

    assert in_child(body) == 0
    assert keep


def test_many_regions_by_bisection():
    """Lookups in a map of 200 regions find the right one, first to last."""
    order = list(range(200))
    random.Random(5).shuffle(order)
    memory = GuestMemoryMmap([guarded_region(i * 2 * PAGE, PAGE) for i in order])
    for i in range(200):
        memory.store(i * 2 * PAGE, 4, i)
    assert [memory.load(i * 2 * PAGE, 4) for i in range(200)] == list(range(200))
    assert not any(memory.check_range(i * 2 * PAGE + PAGE, 1) for i in range(200))
