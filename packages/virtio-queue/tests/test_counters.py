"""What a queue counts is what happened on its ring."""

import pytest
from virtio_queue import ChainBatch, QueueCounters


@pytest.mark.parametrize("event_idx", [False, True])
def test_everything_is_counted(make_bench, event_idx):
    """Chains, tables, wraps and decisions of a known sequence."""
    bench = make_bench(event_idx=event_idx)
    driver = bench.driver(event_idx=event_idx, indirect=True)
    queue, mem, batch = bench.queue, bench.mem, ChainBatch(4, 4)
    for turn in range(5):
        if turn == 2:
            driver.disable_interrupts()
        else:
            driver.enable_interrupts()
        driver.request([b"a"], [1], indirect=turn % 2 == 0)
        driver.request([b"b"])
        assert queue.pop_batch(mem, batch) == 2
        assert queue.complete_batch(mem, batch) == (turn != 2)
        assert not queue.needs_notification(mem)  # nothing since: neither sent nor suppressed
        assert len(list(driver.completed())) == 2
    assert queue.counters == QueueCounters(chains=10, tables=3, wraps=2, notified=4, suppressed=1)
    queue.reset()
    assert queue.counters == QueueCounters()


def test_single_chains_are_counted_too(bench):
    """`pop` and `add_used` count as the batches do, and a broken chain's table counts as well."""
    driver, queue, mem = bench.driver(indirect=True), bench.queue, bench.mem
    driver.request([b"a"], indirect=True)
    queue.add_used(mem, queue.pop(mem).head, 0)
    assert queue.needs_notification(mem)
    head = driver.request([b"a"], indirect=True)
    table = mem.load(bench.layout.desc_table + 16 * head, 8)
    mem.store(table + 8, 4, 1 << 24)
    assert queue.pop_batch(mem, bench.batch) == 1
    assert bench.batch.errors()
    queue.undo_pop()
    queue.pop_batch(mem, bench.batch)
    assert queue.counters == QueueCounters(chains=1, tables=3, notified=1)


def test_counters_of_several_lives_add_up():
    """The sum is taken field by field."""
    assert QueueCounters(1, 2, 3, 4, 5) + QueueCounters(10, 20, 30, 40, 50) == QueueCounters(
        11, 22, 33, 44, 55
    )
