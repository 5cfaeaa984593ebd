"""The outbox: what leaves first, what is thrown out, and that nobody waits."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.errors import ConfigurationError
from bftkit.runtime.channel import BULK, CLIENTS, CONTROL, PROPOSALS
from bftkit.runtime.outbox import FAIR_EVERY, Outbox


def test_one_take_joins_all_that_waits_the_most_urgent_first():
    outbox = Outbox()
    for priority, text in ((BULK, b"d"), (CLIENTS, b"c"), (CONTROL, b"a1"), (PROPOSALS, b"b"), (CONTROL, b"a2")):
        assert outbox.push(priority, [text, memoryview(b".")])
    assert outbox.waiting_messages == 5
    assert outbox.take() == b"a1.a2.b.c.d."
    assert (outbox.waiting_messages, outbox.waiting_bytes, outbox.take()) == (0, 0, b"")
    statistics = outbox.statistics
    assert (statistics.messages_sent, statistics.bytes_sent, statistics.writes) == (5, 12, 1)


def test_one_buffer_is_handed_on_uncopied():
    outbox = Outbox()
    text = bytes(1000)
    outbox.push(CONTROL, [text])
    assert outbox.take() is text
    outbox.push(CONTROL, [memoryview(text)])
    assert outbox.take() == text


def test_a_write_has_a_limit_and_a_longer_message_goes_alone():
    outbox = Outbox(write_bytes=10)
    for text in (b"aaaa", b"bbbb", b"cccc", b"d" * 25, b"e"):
        outbox.push(PROPOSALS, [text])
    assert [outbox.take() for _ in range(4)] == [b"aaaabbbb", b"cccc", b"d" * 25, b"e"]


def test_a_flood_of_urgent_messages_starves_no_bulk():
    outbox = Outbox(write_bytes=10)
    outbox.push(BULK, [b"bulk"])
    taken = []
    for _ in range(FAIR_EVERY):
        for _ in range(3):
            outbox.push(CONTROL, [b"ctrl"])
        taken.append(outbox.take())
    assert taken[:-1] == [b"ctrlctrl"] * (FAIR_EVERY - 1)
    assert taken[-1] == b"bulkctrl"


@pytest.mark.parametrize("limits", [{"max_bytes": 40}, {"max_messages": 4}])
def test_when_it_is_full_bulk_is_thrown_out_and_then_refused(limits):
    outbox = Outbox(**limits)
    for text in (b"bulk 1....", b"bulk 2....", b"bulk 3...."):
        assert outbox.push(BULK, [text])
    assert outbox.push(CLIENTS, [b"client...."])
    assert not outbox.push(BULK, [b"bulk 4...."])
    assert outbox.push(CONTROL, [b"control 1."])
    assert outbox.push(CONTROL, [b"control 2."])
    assert outbox.push(CONTROL, [b"control 3."])
    assert not outbox.push(CONTROL, [b"control 4."])
    assert outbox.take() == b"control 1.control 2.control 3.client...."
    assert (outbox.statistics.dropped_bulk, outbox.statistics.dropped_full) == (3, 2)


def test_the_latest_bulk_is_thrown_out_first_and_nothing_in_vain():
    outbox = Outbox(max_bytes=30)
    outbox.push(BULK, [b"early....."])
    outbox.push(BULK, [b"late......"])
    outbox.push(CONTROL, [b"control..."])
    assert not outbox.push(CONTROL, [bytes(21)])
    assert outbox.waiting_messages == 3
    assert outbox.push(CONTROL, [b"more......"])
    assert outbox.take() == b"control...more......early....."


def test_a_closed_outbox_takes_nothing():
    outbox = Outbox()
    outbox.push(CONTROL, [b"unsent"])
    outbox.close()
    assert not outbox.push(CONTROL, [b"late"])
    assert outbox.take() == b""
    assert (outbox.statistics.dropped_unsent, outbox.statistics.dropped_unconnected) == (1, 1)


def test_it_needs_room_for_something():
    with pytest.raises(ConfigurationError):
        Outbox(max_bytes=0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30)) | st.none(), max_size=60))
def test_the_limits_hold_and_nothing_is_lost_without_being_counted(script):
    outbox = Outbox(max_bytes=100, max_messages=7, write_bytes=25)
    pushed = 0
    for step in script:
        if step is None:
            outbox.take()
        else:
            priority, size = step
            pushed += 1
            outbox.push(priority, [bytes(size)])
        assert 0 <= outbox.waiting_bytes <= 100
        assert 0 <= outbox.waiting_messages <= 7
        counted = outbox.statistics
        gone = counted.messages_sent + counted.dropped_full + counted.dropped_bulk
        assert gone + outbox.waiting_messages == pushed
    while outbox.take():
        pass
    assert outbox.waiting_bytes == outbox.waiting_messages == 0


@pytest.mark.anyio
async def test_the_writer_is_woken_by_wake_and_by_close_and_not_by_push():
    outbox = Outbox()
    woken: list[object] = []

    async def write():
        await outbox.wait()
        woken.append(outbox.take())
        await outbox.wait()
        woken.append(outbox.closed)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await anyio.wait_all_tasks_blocked()
            outbox.wake()
            outbox.push(CONTROL, [b"one"])
            await anyio.wait_all_tasks_blocked()
            assert woken == []
            outbox.wake()
            await anyio.wait_all_tasks_blocked()
            assert woken == [b"one"]
            outbox.close()
    assert woken == [b"one", True]
