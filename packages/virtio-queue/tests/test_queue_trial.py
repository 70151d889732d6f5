"""Trials find what differs, take any sequence of steps, and tell it as a program that does it again."""

import subprocess
import sys

import attrs
import pytest
from virtio_queue import Queue, Segment
from virtio_queue.testing import HostileChain, QueueTrial, RingLayout, Step, TwinQueue, trial_memory

WRITABLE = (Segment(0x5000, 4, True),)


class Forgetful(TwinQueue):
    """Interrupts nobody."""

    def needs_notification(self, mem):
        """Always False."""
        super().needs_notification(mem)
        return False


class Untruthful(TwinQueue):
    """Says that there is more when there is not."""

    def enable_notification(self, mem):
        """Always True."""
        super().enable_notification(mem)
        return True


class Accuser(TwinQueue):
    """Blames everybody."""

    def pop(self, mem):
        """Checks a ring that is elsewhere."""
        self.desc_table = 1
        return super().pop(mem)


class Careless(TwinQueue):
    """Resets everything where its ring alone is meant."""

    def reset_ring(self):
        """What was negotiated is gone."""
        self.reset()


class Absent(TwinQueue):
    """A ring that comes back stands where it began."""

    def attach(self, place, mem=None):
        """From the first entry on."""
        start = self.state().next_avail
        super().attach(attrs.evolve(place, next_avail=start, next_used=start), mem)


class Plain(TwinQueue):
    """Has what every queue has, and nothing else."""

    reset_ring = detach = attach = None


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def packed(request):
    """Each format in turn."""
    return request.param


def run(script):
    """Run a script in a process of its own."""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)


def test_several_chains_come_at_once(packed):
    """As many as were asked for, or as there are descriptors for; all are popped and given back together."""
    trial = QueueTrial(TwinQueue, size=4, packed=packed)
    trial.add(WRITABLE, count=3)
    trial.pop_batch(8)
    assert trial.in_flight == 3
    trial.add(WRITABLE, count=3)
    trial.pop_batch(8)
    assert trial.in_flight == 4
    trial.complete_batch((0, 0, 0, 0))
    trial.take_used()
    assert trial.in_flight == 0


def test_an_honest_round(packed):
    """All that a driver and a device do together, and what was written arrives."""
    trial = QueueTrial(TwinQueue, packed=packed, event_idx=True, start=65535)
    trial.add(WRITABLE, announce=False)
    trial.add(WRITABLE, indirect=True)
    trial.add(WRITABLE * 9)  # more than fit: nothing happens
    trial.publish_and_kick()
    trial.disable_notification()
    trial.pop_batch(4)
    trial.undo_pop(9)
    trial.enable_notification()
    trial.pop()
    trial.save_and_restore()
    trial.pop()
    trial.pop()
    trial.complete_batch((0,), 9, excess=True)
    trial.add_used(5, 2)
    trial.complete_batch((0, 0), 3)
    trial.needs_notification()
    trial.add_used()
    trial.set_interrupts(enabled=False)
    trial.set_interrupts(enabled=True)
    trial.take_used()
    trial.reset()
    assert trial.honest
    assert len(trial.steps) == 21


def test_in_order(packed, queue_class):
    """Positions mean the oldest chain, mostly; another is refused, and nothing happens then."""
    trial = QueueTrial(queue_class, size=8, packed=packed, in_order=True)
    for count in (1, 1, 2, 1):
        trial.add(WRITABLE * count)
    trial.pop_batch(3)
    trial.pop()
    trial.complete_batch((3, 0), 4)  # the second first
    trial.add_used(3, 4)
    assert trial.in_flight == 4
    trial.complete_batch((1, 2, 0), 4)  # the third is not used completely: a used element of its own
    trial.save_and_restore()
    trial.add_used(2, 4)
    trial.take_used()
    assert (trial.honest, trial.in_flight) == (True, 0)


def test_rings_are_reset_and_moved(packed, queue_class):
    """Chains in flight go with a reset and bar a departure; the features stay; the driver notices nothing."""
    trial = QueueTrial(queue_class, packed=packed, event_idx=True, in_order=True, start=65533)
    for fresh in (False, True):
        trial.add(WRITABLE * 2)
        trial.pop()
        trial.detach_and_attach(fresh=fresh)
        assert trial.in_flight == 1
        trial.add_used(0, 3)
        trial.detach_and_attach(fresh=fresh)
        trial.needs_notification()
    trial.take_used()
    trial.add(WRITABLE)
    trial.pop()
    trial.reset_ring()
    assert trial.in_flight == 0
    trial.add(WRITABLE, indirect=True)
    trial.pop()
    trial.add_used()
    trial.take_used()
    assert trial.honest


def test_a_ring_that_is_lost_is_not_brought_back(packed):
    """A hostile place is refused on both sides, and nobody is blamed for it."""
    trial = QueueTrial(Queue, packed=packed)
    trial.set_registers(RingLayout(4, 0, 0, 0))
    trial.detach_and_attach(fresh=True)
    trial.reset_ring()
    assert trial.honest


def test_what_a_queue_need_not_have(packed):
    """Without the calls for it a ring is neither reset alone nor moved."""
    trial = QueueTrial(Plain, packed=packed)
    trial.add(WRITABLE)
    trial.pop()
    trial.reset_ring()
    trial.detach_and_attach()
    assert trial.in_flight == 1


def test_a_hostile_round(packed):
    """Whatever the driver does, the twin agrees with itself; then a reset makes both honest again."""
    trial = QueueTrial(TwinQueue, packed=packed, at=0x7FF0)
    trial.add_hostile(HostileChain(rows=((0x5000, 1, 1, 0),), table=((0, 0, 0, 0),)))
    trial.pop()
    trial.pop_batch(1)
    trial.jump(9)
    trial.pop()
    trial.enable_notification()
    trial.disable_notification()
    trial.poke(2, 7)
    trial.poke(0x1000, 7)
    trial.set_registers(RingLayout(0, 1, 2, 3, packed=packed) if not packed else RingLayout(3, 1, 2, 3, True))
    trial.pop_batch(1)
    trial.take_used()
    assert not trial.honest
    trial.reset()
    assert trial.honest


@pytest.mark.parametrize(
    ("subject", "steps", "message"),
    [
        (Forgetful, (Step("pop"), Step("add_used"), Step("needs_notification")), "False.*twin: .*True"),
        (Untruthful, (Step("pop"), Step("enable_notification")), "True.*twin: .*False"),
        (Accuser, (Step("pop"),), "(?s)misaligned|DriverError|RING"),
        (Careless, (Step("reset_ring"),), "indirect=False.*twin: .*indirect=True"),
        (
            Absent,
            (Step("pop"), Step("add_used"), Step("detach_and_attach", {"fresh": True})),
            "next_avail=(0|32768),.*twin: .*next_avail=(1|32769),",
        ),
    ],
)
def test_what_differs_is_found_and_told(packed, subject, steps, message):
    """The failing step is the last of the script, and the script fails where the trial did."""
    trial = QueueTrial(subject, packed=packed)
    trial.perform(Step("add", {"segments": WRITABLE}))
    for step in steps[:-1]:
        trial.perform(step)
    with pytest.raises(AssertionError, match=rf"(?s){message}"):
        trial.perform(steps[-1])
    script = trial.script()
    assert script.count("\ntrial") == 2 + len(steps)
    done = run(script)
    assert done.returncode == 1
    assert "AssertionError" in done.stderr
    assert f"in {steps[-1].name}\n" in done.stderr


def test_a_script_without_failure_says_so():
    """A mended implementation makes the script succeed; options that need an import get one."""
    trial = QueueTrial(TwinQueue, size=2, make_memory=trial_memory)
    trial.add(segments=WRITABLE)
    trial.pop()
    done = run(trial.script())
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing is wrong\n", "")


def test_what_has_no_name_leaves_a_line_to_fill_in():
    """A class made inside a function, a memory made by a lambda."""

    class Local(TwinQueue):
        pass

    script = QueueTrial(Local, make_memory=lambda: trial_memory()).script()
    assert "Local = ...  # fill in" in script
    assert "subject = ...  # fill in" in script


def test_unknown_steps_are_refused():
    """Only steps can be performed."""
    with pytest.raises(ValueError, match="'script' is no step of QueueTrial"):
        QueueTrial(TwinQueue).perform(Step("script"))


def test_an_honest_driver_is_never_blamed(packed):
    """Even when both sides agree."""
    trial = QueueTrial(TwinQueue, packed=packed)
    trial.add_hostile(HostileChain(rows=((0x5000, 1, 4, 0),)))
    trial.honest = True
    with pytest.raises(AssertionError, match="an honest driver is blamed"):
        trial.pop()
