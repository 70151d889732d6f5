"""The notification protocols of virtqueues as programs for `ordering.explore`.

The device's programs do what the C core does, access by access: its ordering points have the names that the
comments `FENCE name` in `csrc/` give them, and a test compares what the core really loads and stores. The
driver's are those of a driver as Linux has it; their ordering points begin with `driver-`. Both sides sleep:
the device when its ring is empty, the driver when it has nothing to send or no room.

What must hold is what `explore` looks for: the driver gets all its answers (no state in which both sleep, or
one sleeps and the other has ended), and nobody reads a descriptor, an element or a buffer before it was
written, or after it was written anew.
"""

import enum
from collections.abc import Generator
from typing import TypeVar

import attrs

from virtio_queue.testing.ordering import (
    Check,
    Fence,
    Load,
    Notify,
    Operation,
    Order,
    Round,
    Scenario,
    Sleep,
    Store,
    Thread,
)


class Ring(enum.Enum):
    """The format of the ring."""

    SPLIT = "split"
    PACKED = "packed"


@attrs.frozen
class Traffic:
    """How much happens in a scenario.

    Attributes:
        ring: Format.
        event_idx: VIRTIO_F_EVENT_IDX: each side names the entry of which it wants to hear.
        chains: Requests that the driver makes, of one descriptor each, from 1.
        size: Entries of the ring, from 1.
        burst: Most requests that the driver announces at once, 1 to `size`. The device takes all it finds and
            answers them in one batch. start: Free-running index at which both sides begin, to cross 2^16 or
            the end of the ring on the way.
    """

    ring: Ring
    event_idx: bool
    chains: int = 2
    size: int = 1
    burst: int = 1
    start: int = 0

    def scenario(self) -> Scenario:
        """The two programs and their memory."""
        side = _Split(self) if self.ring is Ring.SPLIT else _Packed(self)
        driver = Thread("driver", side.driver, (0, 0))
        device = Thread("device", side.device, (0,), serves=True)
        return Scenario(side.memory(), (driver, device))


_R = TypeVar("_R")
_Part = Generator[Operation, int, _R]

_DISABLE, _AT_DESCRIPTOR = 1, 2  # packed: what an event structure asks for (2.8.10)


class _Side:
    """What both formats have in common.

    Positions count from 0; the number of a request is its position + 1.
    """

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.ring = traffic.ring.value

    def memory(self) -> dict[str, int]:
        """All words, as they are before the first request."""
        slots = range(self.traffic.size)
        buffers = {f"buffer[{number}]": 0 for number in range(1, self.traffic.chains + 1)}
        return buffers | {f"answer[{slot}]": 0 for slot in slots} | self.words(slots)

    def slot(self, position: int) -> int:
        """Where in the ring a position lies."""
        return (self.traffic.start + position) % self.traffic.size

    def driver(self, sent: int, taken: int) -> Round:
        """Send while there is something to send and room, else take answers, else sleep."""
        traffic = self.traffic
        if taken == traffic.chains:
            return None
        burst = min(traffic.burst, traffic.chains - sent, traffic.size - (sent - taken))
        if burst:
            for number in range(sent + 1, sent + burst + 1):
                yield Store(f"buffer[{number}]", number)
            yield from self.announce(sent, burst)
            yield Fence(Order.SEQ_CST, f"driver-{self.ring}-kick")
            if (yield from self.kick_wanted(sent, burst)):
                yield Notify("kick")
            return sent + burst, taken
        if (yield from self.take(taken)):
            yield Check(f"answer[{self.slot(taken)}]", taken + 1, "the answer")
            return sent, taken + 1
        yield from self.ask_for_interrupt(taken)
        yield Fence(Order.SEQ_CST, f"driver-{self.ring}-enable")
        if not (yield from self.used(taken)):
            yield Sleep("interrupt")
            yield from self.ask_for_silence("driver")
        return sent, taken

    def device(self, done: int) -> Round:
        """Answer all there is; when there is none, ask for a kick, look again, sleep."""
        count = yield from self.pop(done)
        if count:
            for position in range(done, done + count):
                yield Check(f"buffer[{position + 1}]", position + 1, "a buffer")
                yield Store(f"answer[{self.slot(position)}]", position + 1)
            yield from self.complete(done, count)
            yield Fence(Order.SEQ_CST, f"{self.ring}-decide")
            if (yield from self.interrupt_wanted(done, count)):
                yield Notify("interrupt")
            return (done + count,)
        yield from self.ask_for_kick(done)
        yield Fence(Order.SEQ_CST, f"{self.ring}-enable")
        if not (yield from self.available(done)):
            yield Sleep("kick")
        yield from self.ask_for_silence("device")
        return (done,)

    def words(self, slots: range) -> dict[str, int]:
        """The words of the ring itself."""
        raise NotImplementedError

    def announce(self, sent: int, burst: int) -> _Part[None]:
        """The driver makes requests available."""
        raise NotImplementedError

    def kick_wanted(self, sent: int, burst: int) -> _Part[bool]:
        """Does the device want to hear of them?"""
        raise NotImplementedError

    def take(self, taken: int) -> _Part[bool]:
        """The driver takes an answer if there is one."""
        raise NotImplementedError

    def used(self, taken: int) -> _Part[bool]:
        """Is there an answer? Only looks."""
        raise NotImplementedError

    def ask_for_interrupt(self, taken: int) -> _Part[None]:
        """The driver says that it wants to hear of the next answer."""
        raise NotImplementedError

    def ask_for_silence(self, who: str) -> _Part[None]:
        """A side that is awake says so; split with EVENT_IDX its old wish is stale and says it."""
        raise NotImplementedError

    def pop(self, done: int) -> _Part[int]:
        """The device takes what is available; how many."""
        raise NotImplementedError

    def complete(self, done: int, count: int) -> _Part[None]:
        """The device publishes their answers."""
        raise NotImplementedError

    def interrupt_wanted(self, done: int, count: int) -> _Part[bool]:
        """Does the driver want to hear of them?"""
        raise NotImplementedError

    def ask_for_kick(self, done: int) -> _Part[None]:
        """The device says that it wants to hear of the next request."""
        raise NotImplementedError

    def available(self, done: int) -> _Part[bool]:
        """Is there a request? Only looks."""
        raise NotImplementedError


class _Split(_Side):
    """VIRTIO 1.2, 2.7. An element of a ring, a descriptor and what they name are one word each."""

    def index(self, position: int) -> int:
        """The free-running index."""
        return (self.traffic.start + position) & 0xFFFF

    def passed(self, event: int, before: int, count: int) -> bool:
        """Did the index pass the event (2.7.7.2)?"""
        return (self.index(before + count) - event - 1) & 0xFFFF < count

    def words(self, slots: range) -> dict[str, int]:
        start = self.index(0)
        words = {"avail.flags": 0, "avail.idx": start, "used_event": start}
        words |= {"used.flags": 0, "used.idx": start, "avail_event": start}
        return words | {
            f"{part}[{slot}]": 0 for part in ("desc", "avail.ring", "used.ring") for slot in slots
        }

    def announce(self, sent: int, burst: int) -> _Part[None]:
        for position in range(sent, sent + burst):
            slot = self.slot(position)
            yield Store(f"desc[{slot}]", position + 1)
            yield Store(f"avail.ring[{slot}]", slot)
        yield Store("avail.idx", self.index(sent + burst), Order.RELEASE, "driver-split-avail")

    def kick_wanted(self, sent: int, burst: int) -> _Part[bool]:
        if self.traffic.event_idx:
            return self.passed((yield Load("avail_event")), sent, burst)
        return not (yield Load("used.flags"))

    def take(self, taken: int) -> _Part[bool]:
        index = yield Load("used.idx", Order.ACQUIRE, "driver-split-used")
        if index == self.index(taken):
            return False
        yield Check(f"used.ring[{self.slot(taken)}]", taken + 1, "a used element")
        return True

    def used(self, taken: int) -> _Part[bool]:
        return (yield Load("used.idx")) != self.index(taken)

    def ask_for_interrupt(self, taken: int) -> _Part[None]:
        if self.traffic.event_idx:
            yield Store("used_event", self.index(taken))
        else:
            yield Store("avail.flags", 0)

    def ask_for_silence(self, who: str) -> _Part[None]:
        if not self.traffic.event_idx:
            yield Store("avail.flags" if who == "driver" else "used.flags", 1)

    def pop(self, done: int) -> _Part[int]:
        index = yield Load("avail.idx", Order.ACQUIRE, "split-avail")
        count = (index - self.index(done)) & 0xFFFF
        for position in range(done, done + count):
            head = yield Load(f"avail.ring[{self.slot(position)}]")
            yield Check(f"desc[{head}]", position + 1, "a descriptor")
        return count

    def complete(self, done: int, count: int) -> _Part[None]:
        for position in range(done, done + count):
            yield Store(f"used.ring[{self.slot(position)}]", position + 1)
        yield Store("used.idx", self.index(done + count), Order.RELEASE, "split-used")

    def interrupt_wanted(self, done: int, count: int) -> _Part[bool]:
        if self.traffic.event_idx:
            return self.passed((yield Load("used_event")), done, count)
        return not (yield Load("avail.flags"))

    def ask_for_kick(self, done: int) -> _Part[None]:
        if self.traffic.event_idx:
            yield Store("avail_event", self.index(done))
        else:
            yield Store("used.flags", 0)

    def available(self, done: int) -> _Part[bool]:
        return (yield Load("avail.idx")) != self.index(done)


class _Packed(_Side):
    """VIRTIO 1.2, 2.8.

    A descriptor is three words: where and how long, its id, its flags (AVAIL 1, USED 2 here).
    """

    def wrap(self, position: int) -> int:
        """The wrap counter of both sides at a position."""
        return 1 - (self.traffic.start + position) // self.traffic.size % 2

    def flags(self, position: int) -> str:
        """The flags of the descriptor at a position."""
        return f"flags[{self.slot(position)}]"

    def announced(self, position: int) -> int:
        """What they are when it is available."""
        return 1 if self.wrap(position) else 2

    def event(self, mode: int, position: int) -> int:
        """An event structure, which each side stores and loads whole."""
        return mode << 16 | self.wrap(position) << 15 | self.slot(position)

    def wanted(self, event: int, before: int, count: int) -> bool:
        """Does the other side want to hear of these positions (2.8.10.1)?"""
        if event >> 16 != _AT_DESCRIPTOR:
            return event >> 16 != _DISABLE
        return event in [self.event(_AT_DESCRIPTOR, position) for position in range(before, before + count)]

    def wish(self, position: int) -> int:
        """The event structure of who wants to hear of a position."""
        return self.event(_AT_DESCRIPTOR if self.traffic.event_idx else 0, position)

    def words(self, slots: range) -> dict[str, int]:
        words = {"driver_event": self.wish(0), "device_event": self.wish(0)}
        # As the lap before left them: used, with the other wrap counter.
        words |= {self.flags(position): 3 * (1 - self.wrap(position)) for position in slots}
        return words | {f"{part}[{slot}]": 0 for part in ("address", "id") for slot in slots}

    def announce(self, sent: int, burst: int) -> _Part[None]:
        for position in range(sent, sent + burst):
            yield Store(f"address[{self.slot(position)}]", position + 1)
            yield Store(f"id[{self.slot(position)}]", position + 1)
            flags = self.announced(position)
            yield Store(self.flags(position), flags, Order.RELEASE, "driver-packed-avail")

    def kick_wanted(self, sent: int, burst: int) -> _Part[bool]:
        return self.wanted((yield Load("device_event")), sent, burst)

    def take(self, taken: int) -> _Part[bool]:
        flags = yield Load(self.flags(taken), Order.ACQUIRE, "driver-packed-used")
        if flags != 3 * self.wrap(taken):
            return False
        yield Check(f"id[{self.slot(taken)}]", -taken - 1, "the id of a used descriptor")
        return True

    def used(self, taken: int) -> _Part[bool]:
        return (yield Load(self.flags(taken))) == 3 * self.wrap(taken)

    def ask_for_interrupt(self, taken: int) -> _Part[None]:
        yield Store("driver_event", self.wish(taken))

    def ask_for_silence(self, who: str) -> _Part[None]:
        yield Store(f"{who}_event", _DISABLE << 16)

    def pop(self, done: int) -> _Part[int]:
        position = done
        while (yield Load(self.flags(position), Order.ACQUIRE, "packed-avail")) == self.announced(position):
            yield Check(f"address[{self.slot(position)}]", position + 1, "an address")
            yield Check(f"id[{self.slot(position)}]", position + 1, "an id")
            position += 1
        return position - done

    def complete(self, done: int, count: int) -> _Part[None]:
        # The first one last: until the driver sees it, it does not look at the others.
        for position in range(done + 1, done + count):
            yield Store(f"id[{self.slot(position)}]", -position - 1)
            yield Store(self.flags(position), 3 * self.wrap(position))
        yield Store(f"id[{self.slot(done)}]", -done - 1)
        yield Store(self.flags(done), 3 * self.wrap(done), Order.RELEASE, "packed-used")

    def interrupt_wanted(self, done: int, count: int) -> _Part[bool]:
        return self.wanted((yield Load("driver_event")), done, count)

    def ask_for_kick(self, done: int) -> _Part[None]:
        yield Store("device_event", self.wish(done))

    def available(self, done: int) -> _Part[bool]:
        return (yield Load(self.flags(done))) == self.announced(done)


__all__ = ("Ring", "Traffic")
