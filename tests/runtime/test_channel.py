"""The channel: order, shares, back-pressure, closing and cancellation, on every event loop."""

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from bftkit.errors import ConfigurationError
from bftkit.runtime.channel import BULK, CLIENTS, CONTROL, PROPOSALS, PriorityChannel

OPERATIONS = st.lists(st.one_of(st.integers(0, 2), st.just("drain")), max_size=80)


@given(OPERATIONS, st.integers(3, 40))
def test_each_priority_keeps_its_order_and_nothing_is_lost(operations, limit):
    channel: PriorityChannel = PriorityChannel([4, 5, 6], limit)
    accepted: list[list[int]] = [[], [], []]
    received: list[list[int]] = [[], [], []]

    def drain():
        items = channel.receive_nowait()
        assert len(items) <= limit
        assert [priority for priority, _ in items] == sorted(priority for priority, _ in items)
        for priority, number in items:
            received[priority].append(number)
        return items

    for number, operation in enumerate(operations):
        if operation == "drain":
            drain()
        elif channel.send_nowait(operation, (operation, number)):
            accepted[operation].append(number)
    while drain():
        pass
    assert received == accepted


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), st.integers(4, 64))
def test_a_drain_is_full_and_gives_every_priority_its_share(depths, limit):
    channel: PriorityChannel = PriorityChannel([100] * len(depths), limit)
    for priority, depth in enumerate(depths):
        for _ in range(depth):
            assert channel.send_nowait(priority, priority)
    items = channel.receive_nowait()
    assert len(items) == min(limit, sum(depths))
    for priority, depth in enumerate(depths):
        assert items.count(priority) >= min(depth, max(1, limit // 16))


def test_the_most_urgent_comes_first():
    channel: PriorityChannel = PriorityChannel([8] * 4)
    for priority in (BULK, CLIENTS, PROPOSALS, CONTROL):
        channel.send_nowait(priority, priority)
    assert channel.receive_nowait() == [CONTROL, PROPOSALS, CLIENTS, BULK]


def test_a_flood_of_urgent_items_does_not_starve_the_others():
    channel: PriorityChannel = PriorityChannel([1000, 10], limit=16)
    channel.send_nowait(1, "bulk")
    for _ in range(1000):
        channel.send_nowait(0, "urgent")
    assert "bulk" in channel.receive_nowait()


def test_a_full_priority_refuses_and_counts_while_others_accept():
    channel: PriorityChannel = PriorityChannel([2, 1])
    assert [channel.send_nowait(0, item) for item in range(4)] == [True, True, False, False]
    assert channel.send_nowait(1, 9)
    statistics = channel.statistics()
    assert statistics.refused == (2, 0)
    assert statistics.depth == (2, 1)
    assert statistics.capacity == (2, 1)


def test_many_items_are_accepted_up_to_the_capacity():
    channel: PriorityChannel = PriorityChannel([3])
    assert channel.send_many_nowait(0, [1, 2]) == 2
    assert channel.send_many_nowait(0, [3, 4, 5]) == 1
    assert channel.send_many_nowait(0, [6]) == 0
    assert channel.receive_nowait() == [1, 2, 3]
    assert channel.statistics().refused == (3,)


def test_the_high_water_mark_and_the_number_sent_survive_a_drain():
    channel: PriorityChannel = PriorityChannel([10])
    channel.send_many_nowait(0, [1, 2, 3])
    channel.receive_nowait()
    channel.send_nowait(0, 4)
    statistics = channel.statistics()
    assert (statistics.high_water, statistics.sent, statistics.depth) == ((3,), (4,), (1,))


@pytest.mark.parametrize(("capacities", "limit"), [([], 8), ([0], 8), ([4, 4, 4], 2), ([1] * 17, 64)])
def test_absurd_shapes_are_refused(capacities, limit):
    with pytest.raises(ConfigurationError):
        PriorityChannel(capacities, limit)


def test_a_closed_channel_is_drained_and_then_ends():
    channel: PriorityChannel = PriorityChannel([2])
    channel.send_nowait(0, 1)
    channel.close()
    with pytest.raises(anyio.ClosedResourceError):
        channel.send_nowait(0, 2)
    with pytest.raises(anyio.ClosedResourceError):
        channel.send_many_nowait(0, [2])
    assert channel.receive_nowait() == [1]
    with pytest.raises(anyio.EndOfStream):
        channel.receive_nowait()


@pytest.mark.anyio
async def test_a_waiting_consumer_wakes_once_for_all_that_came():
    channel: PriorityChannel = PriorityChannel([10])
    drains: list[list[int]] = []

    async def consume():
        drains.append(await channel.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await wait_all_tasks_blocked()
        for item in range(5):
            channel.send_nowait(0, item)
    assert drains == [[0, 1, 2, 3, 4]]


@pytest.mark.anyio
async def test_a_blocked_sender_gets_its_turn_in_order():
    channel: PriorityChannel = PriorityChannel([2])
    channel.send_many_nowait(0, [0, 1])

    async def send(item):
        await channel.send(0, item)

    async with anyio.create_task_group() as tasks:
        for item in (2, 3, 4):
            tasks.start_soon(send, item)
            await wait_all_tasks_blocked()
        assert channel.statistics().waiting_senders == (3,)
        assert not channel.send_nowait(0, 99)
        assert await channel.receive() == [0, 1]
        assert await channel.receive() == [2, 3]
        assert await channel.receive() == [4]
    assert channel.statistics().sent == (5,)


@pytest.mark.anyio
async def test_a_sender_cancelled_while_blocked_has_not_sent():
    channel: PriorityChannel = PriorityChannel([1])
    channel.send_nowait(0, "first")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.send, 0, "cancelled")
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert channel.statistics().waiting_senders == (0,)
    assert await channel.receive() == ["first"]
    assert channel.receive_nowait() == []


@pytest.mark.anyio
async def test_a_sender_cancelled_after_room_was_made_has_sent():
    channel: PriorityChannel = PriorityChannel([1])
    channel.send_nowait(0, "first")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.send, 0, "second")
        await wait_all_tasks_blocked()
        assert channel.receive_nowait() == ["first"]
        tasks.cancel_scope.cancel()
    assert channel.receive_nowait() == ["second"]


@pytest.mark.anyio
async def test_a_cancelled_consumer_loses_nothing():
    channel: PriorityChannel = PriorityChannel([10])
    for items in ([], [1]):
        channel.send_many_nowait(0, items)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await channel.receive()
        assert scope.cancelled_caught
    channel.send_nowait(0, 2)
    assert await channel.receive() == [1, 2]


@pytest.mark.anyio
async def test_a_consumer_cancelled_in_the_turn_of_its_wake_up_loses_nothing():
    channel: PriorityChannel = PriorityChannel([10])
    received: list[int] = []

    async def consume():
        received.extend(await channel.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await wait_all_tasks_blocked()
        channel.send_nowait(0, 1)
        tasks.cancel_scope.cancel()
    channel.send_nowait(0, 2)
    received.extend(await channel.receive())
    assert received == [1, 2]


@pytest.mark.anyio
async def test_closing_frees_blocked_senders_and_the_consumer():
    channel: PriorityChannel = PriorityChannel([1])
    outcomes: list[str] = []

    async def send():
        try:
            await channel.send(0, "never sent")
        except anyio.ClosedResourceError:
            outcomes.append("sender refused")

    async def consume():
        try:
            await empty.receive()
        except anyio.EndOfStream:
            outcomes.append("consumer ended")

    empty: PriorityChannel = PriorityChannel([1])
    channel.send_nowait(0, "sent")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        tasks.start_soon(consume)
        await wait_all_tasks_blocked()
        channel.close()
        empty.close()
    assert sorted(outcomes) == ["consumer ended", "sender refused"]
    assert await channel.receive() == ["sent"]
    with pytest.raises(anyio.EndOfStream):
        await channel.receive()
    with pytest.raises(anyio.ClosedResourceError):
        await channel.send(0, "too late")


@pytest.mark.anyio
async def test_there_is_one_consumer():
    channel: PriorityChannel = PriorityChannel([1])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await channel.receive()
        await channel.send(0, 1)


@pytest.mark.anyio
async def test_many_senders_through_a_narrow_channel_lose_nothing():
    channel: PriorityChannel = PriorityChannel([2, 3], limit=4)
    received: list[tuple[int, int]] = []

    async def send(sender):
        for number in range(50):
            await channel.send(sender % 2, (sender, number))
            if number % 7 == sender:
                await checkpoint()

    async def consume():
        while len(received) < 200:
            received.extend(await channel.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        for sender in range(4):
            tasks.start_soon(send, sender)
    for sender in range(4):
        assert [number for origin, number in received if origin == sender] == list(range(50))
