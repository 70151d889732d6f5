"""Errors carry what happened."""

import pickle
import re
from pathlib import Path

import pytest
from virtio_queue import DriverError, InvalidStateError, Reason, VirtioQueueError

CSRC = Path(__file__).parent.parent / "csrc"


def test_reasons_are_those_of_the_core():
    """Every error of the headers is a reason, and the reverse, except the one that C never finds."""
    import errno

    text = (CSRC / "virtio_batch.h").read_text() + (CSRC / "core.h").read_text()
    defined = {getattr(errno, name) for name in re.findall(r"#define VIRT(?:IO|Q)_E_\w+ (E\w+)", text)}
    assert defined == {int(reason) for reason in Reason} - {Reason.TOO_SHORT}
    assert len(re.findall(r"#define VIRT(?:IO|Q)_E_", text)) == len(defined)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_sentence_with_its_values(reason):
    """With and without values, with and without a chain."""
    bare = str(DriverError(reason))
    full = str(DriverError(reason, head=3, position=1, value=77, limit=88))
    assert "{" not in full + bare
    assert full.endswith("(chain 3, buffer 1)")
    assert "77" in full or "0x4d" in full
    assert "77" not in bare


def test_one_root():
    """One except clause catches everything of this package."""
    assert issubclass(DriverError, VirtioQueueError)
    assert issubclass(InvalidStateError, VirtioQueueError)


def test_errors_survive_pickling():
    """Worker processes can report them."""
    error = DriverError(Reason.LOOP, head=1, position=2, value=3, limit=4)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.reason, copy.head, copy.position, copy.value, copy.limit) == (Reason.LOOP, 1, 2, 3, 4)
    assert str(copy) == str(error)
    state = pickle.loads(pickle.dumps(InvalidStateError("size", 3, "a size")))
    assert (state.field, state.value, str(state)) == ("size", 3, "queue state: size is 3, must be a size")
