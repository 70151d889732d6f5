"""Devices that break rules are found out, by trials step by step and by the state machine."""

import subprocess
import sys

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from virtio_queue import ChainBatch, DriverError
from virtio_queue.testing import DeviceTrial, HostileChain, Step
from virtio_queue.testing.stateful import device_machine
from virtio_queue.testing.strategies import requests


class Mirror:
    """A sound device: answers each request with its bytes, turned around."""

    def __call__(self, queue, memory):
        """Work until nothing is available."""
        more = True
        while more:
            queue.disable_notification(memory)
            while (chain := queue.pop(memory)) is not None:
                self.answer(queue, memory, chain)
            more = queue.enable_notification(memory)
        return queue.needs_notification(memory)

    def answer(self, queue, memory, chain):
        """One request."""
        writer = chain.writer()
        writer.write(chain.reader().read_all()[::-1][: writer.available])
        queue.add_used(memory, chain.head, writer.consumed)


class Batched:
    """A sound device that works in batches."""

    def __call__(self, queue, memory):
        """Work until nothing is available."""
        batch, interrupt = ChainBatch(2, max(queue.size, 1)), False
        while True:
            while queue.pop_batch(memory, batch):
                for index in range(len(batch)):
                    if not batch.records()[index][4]:
                        self.fill(batch, index, memory)
                interrupt |= queue.complete_batch(memory, batch)
            if not queue.enable_notification(memory):
                return interrupt

    def fill(self, batch, index, memory):
        """One request."""
        writer = batch.chain(index, memory).writer()
        writer.write(b"x" * writer.available)
        batch.set_written(index, writer.consumed)


class Keeper:
    """A sound device that keeps the last chain until another comes."""

    def __init__(self):
        self.kept = None

    def __call__(self, queue, memory):
        """Work until nothing is available."""
        while (chain := queue.pop(memory)) is not None:
            if self.kept is not None:
                queue.add_used(memory, self.kept, 0)
            self.kept = chain.head
        if queue.enable_notification(memory):
            return self(queue, memory)
        return queue.needs_notification(memory)


class Overtaker:
    """A sound device where nobody asks for order: the last request is completed first."""

    def __call__(self, queue, memory):
        """Work until nothing is available."""
        more = True
        while more:
            heads = [chain.head for chain in iter(lambda: queue.pop(memory), None)]
            for head in reversed(heads):
                queue.add_used(memory, head, 0)
            more = queue.enable_notification(memory)
        return queue.needs_notification(memory)


class Swallower(Mirror):
    """Completes nothing that has no room for an answer."""

    def answer(self, queue, memory, chain):
        """One request."""
        if chain.writable:
            super().answer(queue, memory, chain)


class Boaster(Mirror):
    """Says that it wrote all, whatever the room."""

    def answer(self, queue, memory, chain):
        """One request."""
        queue.add_used(memory, chain.head, chain.readable_bytes)


class Repeater(Mirror):
    """Completes what it has completed."""

    def answer(self, queue, memory, chain):
        """One request."""
        super().answer(queue, memory, chain)
        queue.add_used(memory, chain.head, 0)


class Scribbler(Mirror):
    """Writes behind the last buffer."""

    def answer(self, queue, memory, chain):
        """One request."""
        super().answer(queue, memory, chain)
        for segment in chain.writable[-1:]:
            behind = segment.addr + segment.len
            if behind < 1 << 64 and memory.check_range(behind, 1, write=True):
                memory.write(behind, b"!")


class Framer(Mirror):
    """Takes the first buffer for the whole request."""

    def answer(self, queue, memory, chain):
        """One request."""
        request = b"".join(memory.read(part.addr, part.len) for part in chain.readable[:1])
        writer = chain.writer()
        writer.write(request[::-1][: writer.available])
        queue.add_used(memory, chain.head, writer.consumed)


class Deaf(Mirror):
    """Asks for no kick and leaves."""

    def __call__(self, queue, memory):
        """Work until nothing is available."""
        while (chain := queue.pop(memory)) is not None:
            self.answer(queue, memory, chain)
        queue.disable_notification(memory)
        return queue.needs_notification(memory)


class Hasty(Mirror):
    """Takes one request for each kick."""

    def __call__(self, queue, memory):
        """Work on one."""
        chain = queue.pop(memory)
        if chain is not None:
            self.answer(queue, memory, chain)
        queue.enable_notification(memory)
        return queue.needs_notification(memory)


class Silent(Mirror):
    """Interrupts nobody."""

    def __call__(self, queue, memory):
        """Work until nothing is available."""
        super().__call__(queue, memory)
        return False


class Noisy(Mirror):
    """Always interrupts."""

    def __call__(self, queue, memory):
        """Work until nothing is available."""
        super().__call__(queue, memory)
        return True


class Careless(Mirror):
    """Does not ask whether to interrupt."""

    def __call__(self, queue, memory):
        """Work until nothing is available."""
        while (chain := queue.pop(memory)) is not None:
            self.answer(queue, memory, chain)
        queue.enable_notification(memory)
        return False


class Spinner(Mirror):
    """Stays at a malformed chain for ever."""

    def __call__(self, queue, memory):
        """Work until nothing is available."""
        while True:
            try:
                return super().__call__(queue, memory)
            except DriverError:
                continue


class Fragile(Mirror):
    """Falls over a request that is shorter than its header."""

    def answer(self, queue, memory, chain):
        """One request."""
        _first = chain.reader().read_all()[0]
        super().answer(queue, memory, chain)


class Accuser(Mirror):
    """Wants a reset for a request without room for the answer."""

    def answer(self, queue, memory, chain):
        """One request."""
        chain.writer().write(b"x")
        super().answer(queue, memory, chain)


def answer(request, room):
    """What a mirror has to write."""
    return request[::-1][:room]


ANY_WRONG = [
    (Swallower, r"does not give \d chains back"),
    (Boaster, "has room for"),
    (Repeater, "which it does not have"),
    (Scribbler, "not its to write"),
    (Framer, "request b'.*not b'"),
    (Deaf, "wants no kick"),
    (Hasty, "lying"),
    (Silent, "forgot to interrupt"),
    (Noisy, "does not want it"),
    (Careless, "did not ask whether to interrupt"),
    (Spinner, "does not come to an end"),
    (Fragile, "index out of range"),
    (Accuser, "blames an honest driver"),
]


def search(machine, *phases):
    """Run a machine, the same way each time."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=1000,  # none needs more than 150, but what is drawn depends on the modules loaded
            stateful_step_count=15,
            database=None,
            deadline=None,
            derandomize=True,
            phases=phases,
        ),
    )


@pytest.mark.parametrize(
    ("device", "in_order"),
    [
        *((device, order) for device in (Mirror, Batched, Keeper) for order in (False, True)),
        (Overtaker, False),
    ],
)
def test_sound_devices_survive(device, in_order):
    """With any driver, in both formats; in order those that keep it."""
    answers = answer if device is Mirror else None
    machine = device_machine(device, keeps=device is Keeper, answer=answers, in_order=in_order)
    run_state_machine_as_test(
        machine, settings=settings(max_examples=30, stateful_step_count=15, database=None, deadline=None)
    )


@pytest.mark.parametrize(("device", "message"), ANY_WRONG)
def test_wrong_devices_are_found(device, message):
    """By the machine, unaided; each breaks one rule, that of answers only where they are looked at."""
    machine = device_machine(device, answer=answer if device is Framer else None)
    with pytest.raises((AssertionError, IndexError), match=f"(?s){message}"):
        search(machine, Phase.generate)


def test_overtaking_is_found_where_order_was_promised():
    """The queue refuses to complete another chain than the oldest."""
    with pytest.raises(ValueError, match="is not the next to complete in order"):
        search(device_machine(Overtaker, in_order=True), Phase.generate)


def test_a_failure_is_printed_as_a_program_that_does_it_again():
    """Shrunk to a few lines; it ends as the search did, in a process without Hypothesis."""
    with pytest.raises(AssertionError) as found:
        search(device_machine(Boaster, requests=requests(most=4)), Phase.generate, Phase.shrink)
    script = next(note for note in found.value.__notes__ if "\ntrial = " in note)
    assert script.count("\ntrial") <= 4
    assert "hypothesis" not in script
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"AssertionError: {found.value}"


def test_a_trial_by_hand():
    """Each step does what it says, and a device that wants a reset is left alone until it has one."""
    trial = DeviceTrial(Mirror, size=4, answer=answer)
    trial.request(readable=(b"ab", b"c"), writable=(4,), indirect=True)
    trial.request(readable=(b"x",) * 5)  # no room: nothing happens
    trial.kick()
    trial.kick()
    trial.take_used()
    trial.set_interrupts(enabled=False)
    trial.perform(Step("wake"))
    trial.add_hostile(HostileChain(head=9))
    assert trial.wants_reset
    assert not trial.honest
    trial.wake()
    trial.kick()
    trial.take_used()
    trial.reset()
    assert trial.honest
    assert not trial.wants_reset
    assert "answer=answer" in trial.script()


def test_registers_reach_the_queue():
    """What a device sets or asks passes through."""

    def device(queue, memory):
        assert queue.size == 4
        queue.event_idx = True
        assert queue.event_idx
        assert queue.pop(memory) is not None
        queue.undo_pop()
        queue.event_idx = False
        return Mirror()(queue, memory)

    trial = DeviceTrial(lambda: device)
    trial.request(writable=(1,))
    trial.kick()
    trial.take_used()
