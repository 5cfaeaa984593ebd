"""The client on every event loop, against executors that stand for a cluster."""

import threading

import anyio
import anyio.to_thread
import pytest
from anyio import TASK_STATUS_IGNORED

from bftkit.errors import ClientError, NotReady, OutcomeUnknown, Overloaded, Rejected
from bftkit.replica import log_reads
from bftkit.replica.client_messages import decode_request
from bftkit.runtime import ordered_reads
from bftkit.runtime.client import Client
from bftkit.runtime.client_reads import Reading
from bftkit.runtime.client_settings import ClientSettings
from bftkit.runtime.session_policy import SessionPolicy
from tests.runtime.client_world import BAD, World, envelope_of

pytestmark = pytest.mark.anyio


class WorldConnector:
    """Carries requests to the replicas of a `World`, at once and faithfully, in a task of its own."""

    def __init__(self, world):
        self.world = world
        self.batches = []
        self.unreachable = set()
        self.work = anyio.Event()

    async def run(self, sink, *, task_status=TASK_STATUS_IGNORED):
        self.sink = sink
        for replica in range(self.world.quorum.members):
            if replica in self.unreachable:
                sink.on_down(replica, "nobody there")
            else:
                sink.on_up(replica)
        task_status.started()
        while True:
            await self.work.wait()
            self.work = anyio.Event()
            self.world.deliver_to_replicas()
            for replica in range(self.world.quorum.members):
                self.world.execute(replica)
            replies, self.world.to_client = self.world.to_client, []
            for replica, payload in replies:
                sink.on_replies(replica, [payload])

    def send(self, replica, requests):
        self.batches.append((replica, requests))
        self.world.to_replicas += [(replica, data) for data in requests]
        self.work.set()

    def ask(self, replica, question):
        return False


def make(world=None, **settings):
    world = world or World()
    connector = WorldConnector(world)
    client = Client(world.key, world.domain, world.quorum, connector, ClientSettings(**settings))
    return client, connector, world


async def test_submit_returns_a_receipt():
    client, _, world = make()
    async with client:
        receipt = await client.submit(b"a")
        assert (receipt.result, receipt.certificate) == (b"0", None)
        assert receipt.height == len(world.log)
        second = await client.submit(b"b")
        assert second.result == b"1"
        assert second.command_id == (receipt.command_id[0], receipt.command_id[1] + 1)


async def test_many_keep_their_order_over_several_envelopes():
    client, _, world = make(policy=SessionPolicy(run_commands=10))
    async with client:
        receipts = await client.submit_many([b"%d" % number for number in range(95)])
    assert [receipt.result for receipt in receipts] == [b"%d" % number for number in range(95)]
    assert [receipt.command_id[1] for receipt in receipts] == list(range(1, 96))
    assert world.diaries[0].entries == [b"%d" % number for number in range(95)]


async def test_tasks_of_one_turn_share_an_envelope():
    client, connector, _ = make()
    async with client:
        connector.batches.clear()
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(client.submit, b"%d" % number)
        envelopes = [envelope_of(data) for _, batch in connector.batches for data in batch]
        assert sum(envelope.count for envelope in envelopes) == 50
        assert len(envelopes) <= 2


async def test_sessions_spread_over_contacts():
    client, connector, world = make(sessions=4)
    async with client:
        connector.batches.clear()
        for number in range(8):
            await client.submit(b"%d" % number)
        assert {replica for replica, _ in connector.batches} == {0, 1, 2, 3}
    assert sorted(world.diaries[1].entries) == [b"%d" % number for number in range(8)]


@pytest.mark.parametrize("command", [None, "text", 5, bytearray(b"x"), b"", b"x" * 101])
async def test_what_is_no_command_is_rejected_and_the_client_lives(command):
    client, _, world = make(max_command_bytes=100)
    async with client:
        with pytest.raises(Rejected):
            await client.submit(command)
        with pytest.raises(Rejected):
            await client.submit_many([b"good", command])
        await client.submit(b"x" * 100)
    assert world.diaries[0].entries == [b"x" * 100]


@pytest.mark.parametrize("commands", [[], (), None, b"bytes", {b"set"}, iter([b"x"])])
async def test_what_is_no_list_of_commands_is_rejected(commands):
    client, _, _ = make()
    async with client:
        with pytest.raises(Rejected):
            await client.submit_many(commands)


async def test_before_opening_and_after_closing_it_is_not_ready():
    client, _, _ = make()
    with pytest.raises(NotReady, match="not open yet"):
        await client.submit(b"x")
    async with client:
        await client.submit(b"x")
    with pytest.raises(NotReady, match="closed"):
        await client.submit(b"x")
    with pytest.raises(NotReady):
        await client.query(b"x")
    with pytest.raises(NotReady):
        await client.__aenter__()


async def test_another_thread_is_told_so():
    client, _, _ = make()
    failures = []

    def elsewhere():
        coroutine = client.submit(b"x")
        try:
            coroutine.send(None)
        except ClientError as error:
            failures.append(error)

    async with client:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
    assert isinstance(failures[0], NotReady)


async def test_opening_says_why_it_fails():
    client, connector, world = make(open_timeout_s=0.1)
    world.busy = dict.fromkeys(range(4), ("the signature is not valid", 0))
    connector.unreachable = {2}
    with pytest.raises(NotReady, match=r"the signature is not valid; replica 2: nobody there"):
        async with client:
            pass


async def test_a_timeout_leaves_the_outcome_unknown_and_resubmit_goes_on():
    client, _, world = make(policy=SessionPolicy(retry_after_ms=100))
    async with client:
        world.silent = {0, 1, 2, 3}
        with pytest.raises(OutcomeUnknown) as caught:
            await client.submit(b"x", timeout=0.05)
        world.silent = set()
        receipt = await client.resubmit(caught.value.command_id)
        assert receipt.result == b"0"
        assert receipt.command_id == caught.value.command_id
        with pytest.raises(Rejected):
            await client.resubmit(receipt.command_id)
    assert world.diaries[0].entries == [b"x"]


async def test_the_impatient_do_not_take_the_patient_with_them():
    client, _, world = make(policy=SessionPolicy(retry_after_ms=200))
    world_silent = {0, 1, 2, 3}
    outcomes = {}

    async def submit(command, timeout):
        try:
            outcomes[command] = (await client.submit(command, timeout=timeout)).result
        except OutcomeUnknown:
            outcomes[command] = None
            world.silent = set()

    async with client:
        world.silent = world_silent
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(submit, b"patient", 10)
            tasks.start_soon(submit, b"hasty", 0.05)
    assert outcomes[b"hasty"] is None
    assert world.diaries[0].entries[int(outcomes[b"patient"])] == b"patient"


async def test_a_bad_command_is_rejected_alone():
    client, _, world = make()
    outcomes = {}

    async def submit(command):
        try:
            outcomes[command] = (await client.submit(command)).height
        except Rejected as error:
            outcomes[command] = error.reason

    async with client:
        async with anyio.create_task_group() as tasks:
            for command in (b"a", BAD, b"b"):
                tasks.start_soon(submit, command)
        with pytest.raises(Rejected, match="a bad command"):
            await client.submit_many([b"c", BAD, b"d"])
    assert outcomes[BAD] == "a bad command"
    assert sorted(world.diaries[0].entries) == [b"a", b"b", b"c", b"d"]


async def test_overload_is_told_before_anything_is_sent():
    client, connector, world = make()
    async with client:
        world.busy = dict.fromkeys(range(4), ("overloaded", 60_000))
        with pytest.raises(OutcomeUnknown):
            await client.submit(b"x", timeout=0.05)
        connector.batches.clear()
        with pytest.raises(Overloaded) as caught:
            await client.submit(b"y")
        assert 50 < caught.value.retry_after <= 60
        assert connector.batches == []


async def test_a_long_queue_is_overload():
    client, _, world = make(policy=SessionPolicy(run_commands=1, window=1, queued_commands=2))
    async with client, anyio.create_task_group() as tasks:
        world.silent = {0, 1, 2, 3}
        for number in range(3):
            tasks.start_soon(client.submit, b"%d" % number)
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await client.submit(b"one more")
        tasks.cancel_scope.cancel()


async def test_closing_gives_everybody_an_answer():
    client, _, world = make(policy=SessionPolicy(run_commands=1, window=1))
    outcomes = {}

    async def submit(command):
        try:
            await client.submit(command, timeout=60)
        except ClientError as error:
            outcomes[command] = type(error)

    async with anyio.create_task_group() as tasks, client:
        world.silent = {0, 1, 2, 3}
        tasks.start_soon(submit, b"sent")
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(submit, b"unsent")
        await anyio.wait_all_tasks_blocked()
    assert outcomes == {b"sent": OutcomeUnknown, b"unsent": NotReady}


# --- Reads -----------------------------------------------------------------------------------------------------------


async def test_a_query_goes_through_the_log_and_sees_what_was_acknowledged():
    client, _, world = make()
    async with client:
        await client.submit_many([b"a", b"b"])
        reading = await client.read(b"q")
        assert reading == Reading(b"2 entries, q", len(world.log), ordered=True)
        assert await client.query(b"q") == b"2 entries, q"
    assert world.executors[0].sessions.root() == world.executors[1].sessions.root()
    assert world.diaries[0].entries == [b"a", b"b"], "a read is no command"


async def test_a_client_without_sessions_reads_all_the_same():
    client, _, _ = make(sessions=0)
    async with client:
        assert await client.query(b"q") == b"0 entries, q"


async def test_many_read_at_once():
    client, _, _ = make()
    answers = []

    async def ask(number):
        answers.append(await client.query(b"%d" % number))

    async with client, anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(ask, number)
    assert sorted(answers) == sorted(b"0 entries, %d" % number for number in range(50))


async def test_a_liar_alone_is_not_believed():
    client, _, _ = make(World(liars={0}))
    async with client:
        assert await client.query(b"q") == b"0 entries, q"


@pytest.mark.parametrize("request_", [None, "text", bytearray(b"x"), b"x" * 101])
async def test_what_is_no_query_is_rejected(request_):
    client, _, _ = make(max_command_bytes=100)
    async with client:
        with pytest.raises(Rejected):
            await client.query(request_)


async def test_a_query_at_which_the_state_machine_fails_is_rejected_and_the_replicas_live():
    client, _, _ = make()
    async with client:
        with pytest.raises(Rejected, match="failed at this query"):
            await client.query(BAD)
        assert (await client.submit(b"a")).result == b"0"


async def test_a_read_that_nobody_takes_says_why_in_the_end():
    client, _, world = make()
    async with client:
        world.busy = dict.fromkeys(range(4), ("overloaded", 10))
        with pytest.raises(NotReady, match="no answer in time: overloaded"):
            await client.query(b"q", timeout=0.1)
        world.busy = dict.fromkeys(range(4))
        assert await client.query(b"q") == b"0 entries, q"
        world.busy = dict.fromkeys(range(4), ("the signature is not valid", 0))
        with pytest.raises(Rejected, match="the signature is not valid"):
            await client.query(b"q")


async def test_a_read_whose_batch_had_no_room_is_put_into_another(monkeypatch):
    rooms = iter((0, 10, 4096))
    monkeypatch.setattr(log_reads, "MAX_ANSWERS_BYTES", 0)
    client, connector, world = make()
    execute = world.execute

    def widen(replica):
        if replica == 0 and world.executors[0].height < len(world.log):
            monkeypatch.setattr(log_reads, "MAX_ANSWERS_BYTES", next(rooms))
        execute(replica)

    async with client:
        world.execute = widen
        connector.batches.clear()
        assert await client.query(b"q") == b"0 entries, q"
    nonces = [decode_request(data).nonce for _, batch in connector.batches for data in batch]
    assert len(set(nonces)) == 3


async def test_readers_are_bounded_and_do_not_wait_for_a_client_that_closes(monkeypatch):
    monkeypatch.setattr(ordered_reads, "MOST_READS", 2)
    client, _, world = make()
    outcomes = []

    async def ask():
        try:
            await client.query(b"q", timeout=60)
        except ClientError as error:
            outcomes.append(error)

    async with anyio.create_task_group() as tasks, client:
        world.silent = {0, 1, 2, 3}
        for _ in range(3):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert [type(outcome) for outcome in outcomes] == [Overloaded]
    assert [type(outcome) for outcome in outcomes[1:]] == [NotReady, NotReady]
