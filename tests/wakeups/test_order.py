"""The C core accesses the words of a ring in the order of the programs that are explored."""

import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
import sanitize
import stress
from virtio_queue.testing.notifications import Ring, Traffic
from virtio_queue.testing.ordering import Fence, Load, Notify, Sleep, Store

HERE = Path(__file__).parent
TRACE = sanitize.Tool(
    "trace",
    library="",
    reports=(),
    build={"CFLAGS": f"-include {HERE / 'csrc/trace.h'}"},
    run={},
)
# Descriptors are left out, and what the driver reads out of a used one: the flags stand for all of that.
PAYLOAD = ("buffer", "answer", "desc[", "address[", "id[")
# Requests, entries of the ring, of which the driver uses all it can: over its end, and in several laps.
SHAPES = [(3, 1), (6, 2), (5, 4), (11, 4)]

pytestmark = pytest.mark.pure


@pytest.fixture(scope="module")
def traced():
    """Run a script on an extension that records its accesses."""
    with sanitize.staged(TRACE, ("virtio-queue",)) as tree:

        def run(*arguments):
            command = [sys.executable, HERE / "trace_core.py", *map(str, arguments)]
            env = {"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin"}
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return [tuple(access) for access in json.loads(done.stdout)]

        yield run


class Flow:
    """A thread of a scenario that runs until it sleeps."""

    def __init__(self, thread):
        self._operations = self._all(thread)
        self._next = next(self._operations)

    @staticmethod
    def _all(thread):
        arguments = thread.start
        while arguments is not None:
            arguments = yield from thread.program(*arguments)

    def advance(self, memory, bells):
        """Run until the bell it sleeps for is silent, or to the end; yields the operations."""
        while self._next is not None and not (isinstance(self._next, Sleep) and self._next.bell not in bells):
            yield self._next
            try:
                self._next = self._operations.send(self._perform(self._next, memory, bells))
            except StopIteration:
                self._next = None

    def _perform(self, operation, memory, bells):
        match operation:
            case Load(place):
                return memory[place]
            case Store(place, value):
                memory[place] = value
            case Notify(bell):
                bells.add(bell)
            case Sleep(bell):
                bells.remove(bell)
        return 0


def modelled(scenario):
    """What the device does when driver and device take turns, each until it sleeps."""
    memory, bells = dict(scenario.memory), set()
    driver, device = map(Flow, scenario.threads)
    operations = list(device.advance(memory, bells))
    while list(driver.advance(memory, bells)):
        operations += device.advance(memory, bells)
    for operation in operations:
        if isinstance(operation, Fence):
            yield "F", "", operation.order.value
        elif isinstance(operation, Load | Store):
            yield ("L" if isinstance(operation, Load) else "S"), operation.place, operation.order.value


def told(operations):
    """What matters of them; a word that is written or read in two parts counts once."""
    kept = [(kind, place, order) for kind, place, order in operations if not place.startswith(PAYLOAD)]
    return [key for key, _ in groupby(kept)]


@pytest.mark.parametrize(("chains", "size"), SHAPES)
@pytest.mark.parametrize("mode", stress.MODES)
@pytest.mark.parametrize("ring", stress.RINGS)
def test_core_does_what_the_model_does(traced, ring, mode, chains, size):
    """Loads, stores and fences, their places and orders."""
    traffic = Traffic(Ring(ring), mode == "event", chains=chains, size=size, burst=size)
    bursts = [min(size, chains - start) for start in range(0, chains, size)]
    assert told(traced(ring, mode, size, *bursts)) == told(modelled(traffic.scenario()))
