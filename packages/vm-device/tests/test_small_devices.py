"""The PM timer, the debug ports and the generation ID."""

import threading
import uuid
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_device import (
    BootTimer,
    DebugConsole,
    PlatformError,
    PmTimer,
    PmTimerState,
    PostCodes,
    SavedStateError,
    VmGenId,
    VmGenIdState,
)


class TestPmTimer:
    """3.579545 MHz, exactly."""

    @given(st.integers(0, 2**63), st.integers(0, 2**60), st.sampled_from([24, 32]))
    def test_counts(self, start, passed, bits):
        """As a fraction does, from 0 on, in all its bits."""
        now = [start]
        timer = PmTimer(lambda: now[0], bits=bits)
        assert timer.read(0, 4) == 0
        now[0] += passed
        assert timer.count() == int(Fraction(passed, 10**9) * PmTimer.HZ) % 2**bits
        timer.write(0, 4, 12345)
        whole = timer.count()
        assert timer.read(0, 4) == whole
        assert [timer.read(n, 1) for n in range(4)] == list(whole.to_bytes(4, "little"))
        assert timer.read(0, 8) == whole

    @given(st.integers(0, 2**32 - 1), st.integers(0, 10**12))
    def test_goes_on_after_a_restore(self, count, passed):
        """From what it showed, on another clock."""
        now = [77]
        timer = PmTimer.from_state(PmTimerState(count, 32), lambda: now[0])
        assert timer.state() == PmTimerState(count, 32)
        now[0] += passed
        moved = (timer.count() - count) % 2**32
        exact = Fraction(passed, 10**9) * PmTimer.HZ % 2**32
        assert abs(moved - exact) <= 1 or 2**32 - abs(moved - exact) <= 1

    def test_refusals(self):
        """Widths and states."""
        with pytest.raises(PlatformError, match="bits=0x10"):
            PmTimer(bits=16)
        for state in (PmTimerState(1 << 24, 24), PmTimerState(0, 20), PmTimerState(0, 32, version=3)):
            with pytest.raises(SavedStateError):
                PmTimer.from_state(state)
        assert PmTimer.describe().ranges[0].size == 4


class TestDebugPorts:
    """Text and progress."""

    def test_console(self):
        """Each write is a character; a guest can see that somebody listens."""
        text = bytearray()
        port = DebugConsole(text.extend)
        for size, value in ((1, 0x68), (1, 0x69), (4, 0xFFFF_FF0A)):
            port.write(0, size, value)
        assert text == b"hi\n"
        assert (port.read(0, 1), port.read(0, 2)) == (0xE9, 0xE9E9)

    def test_console_without_room(self):
        """A host that takes no more costs the guest its text and nothing else."""

        def full(data):
            raise OSError(28, "No space left on device")

        port = DebugConsole(full)
        for _ in range(3):
            port.write(0, 1, 65)
        assert port.lost == 3

    def test_console_of_two_processors(self):
        """One that writes while another's character is under way waits for it."""
        text, waits = bytearray(), []

        def out(data):
            if data == b"a":
                other.start()
                other.join(0.1)
                waits.append(other.is_alive())
            text.extend(data)

        port = DebugConsole(out)
        other = threading.Thread(target=port.write, args=(0, 1, 0x62))
        port.write(0, 1, 0x61)
        other.join()
        assert (waits, text) == ([True], b"ab")

    def test_codes(self):
        """Each is reported; reading is an open bus."""
        codes = []
        port = PostCodes(codes.append)
        port.write(0, 1, 0xAA)
        port.write(0, 2, 0x1255)
        assert (codes, port.read(0, 2)) == ([0xAA, 0x55], 0xFFFF)
        assert (PostCodes.describe().ranges[0].base, DebugConsole.describe().ranges[0].base) == (0x80, 0xE9)


ACCESSES = st.lists(
    st.tuples(
        st.booleans(), st.integers(0, 3), st.sampled_from([1, 2, 4, 8]), st.binary(min_size=8, max_size=8)
    )
)


class TestDebugPortsModel:
    """Against what the bytes of the accesses say."""

    @given(ACCESSES)
    def test_console(self, accesses):
        """The first byte of each write is text; reads are nothing but 0xE9."""
        text = bytearray()
        port = DebugConsole(text.extend)
        for is_write, offset, size, data in accesses:
            if is_write:
                port.write(offset, size, int.from_bytes(data[:size], "little"))
            else:
                assert port.read(offset, size).to_bytes(size, "little") == b"\xe9" * size
        assert text == bytes(data[0] for is_write, _, _, data in accesses if is_write)
        assert port.lost == 0

    @given(ACCESSES)
    def test_codes(self, accesses):
        """The first byte of each write is a code; reads float."""
        codes = []
        port = PostCodes(codes.append)
        for is_write, offset, size, data in accesses:
            if is_write:
                port.write(offset, size, int.from_bytes(data[:size], "little"))
            else:
                assert port.read(offset, size).to_bytes(size, "little") == b"\xff" * size
        assert codes == [data[0] for is_write, _, _, data in accesses if is_write]

    @given(ACCESSES)
    def test_boot_timer(self, accesses):
        """A write to the first port is a mark with the time of it; reads float."""
        marks, now = [], iter(range(1000, 10**6))
        port = BootTimer(lambda *mark: marks.append(mark), clock_ns=now.__next__)
        expected = []
        for is_write, offset, size, data in accesses:
            value = int.from_bytes(data[:size], "little")
            if is_write:
                port.write(offset, size, value)
                expected += [(1000 + len(expected), value)] if offset == 0 else []
            else:
                assert port.read(offset, size).to_bytes(size, "little") == b"\xff" * size
        assert marks == expected


class Memory(dict):
    """Guest memory that remembers what was written where."""

    write = dict.__setitem__


class TestVmGenId:
    """An identifier that a copy of a machine does not share."""

    def test_from_the_first_to_a_restored_machine(self):
        """Written before the start; renewed and announced in the copy."""
        memory, told = Memory(), []
        device = VmGenId(memory, 0x9000, lambda: told.append("first"))
        assert memory == {}
        device.install()
        assert memory == {0x9000: device.generation.bytes_le}
        copy = VmGenId.from_state(device.state(), memory, lambda: told.append("copy"))
        assert (copy.generation, told) == (device.generation, [])
        copy.renew()
        assert told == ["copy"]
        assert copy.generation != device.generation
        assert memory == {0x9000: copy.generation.bytes_le}
        assert copy.describe().properties["address"] == 0x9000

    @given(
        st.integers(0, 2**52 - 1).map(lambda page: page * 4096), st.integers(0, 510), st.uuids(), st.uuids()
    )
    def test_round_trip(self, page, cell, old, new):
        """Wherever it is and whatever it says; a restore writes and announces nothing of its own accord."""
        address, memory, told = page + 8 * cell, Memory(), []
        device = VmGenId(memory, address, told.append, generate=lambda: old)
        state = device.state()
        assert state == VmGenIdState(address, old)
        copy = VmGenId.from_state(state, memory, lambda: told.append(new), generate=lambda: new)
        assert (copy.state(), copy.generation, memory, told) == (state, old, {}, [])
        copy.install()
        assert memory == {address: old.bytes_le}
        copy.renew()
        assert (copy.state(), memory, told) == (VmGenIdState(address, new), {address: new.bytes_le}, [new])
        assert VmGenId.from_state(copy.state(), memory, list).state() == copy.state()

    @pytest.mark.parametrize("address", [-8, 4, 0xFF8, 0x1FFC])
    def test_where_it_may_not_be(self, address):
        """Unaligned, across a page, nowhere."""
        with pytest.raises(PlatformError, match="multiple of 8"):
            VmGenId(Memory(), address, list)
        with pytest.raises(SavedStateError, match="address"):
            VmGenId.from_state(VmGenIdState(address, uuid.uuid4()), Memory(), list)

    def test_another_version(self):
        """Refused."""
        with pytest.raises(SavedStateError, match="version"):
            VmGenId.from_state(VmGenIdState(0, uuid.uuid4(), version=2), Memory(), list)
