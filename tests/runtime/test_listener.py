"""The listening port under pressure: limits on strangers, and a system that is out of descriptors."""

import resource
import socket
from contextlib import AsyncExitStack

import anyio
import pytest

from bftkit.errors import ConfigurationError, HandshakeRefused
from bftkit.runtime.connection import NetworkTuning
from bftkit.runtime.listener import REFUSALS_KEPT, Refusals, Strangers, host_and_port
from tests.runtime.parts import Hands
from tests.runtime.tcp_members import Cluster, running

CROWDED = NetworkTuning(strangers=10, strangers_per_address=2, stranger_grace_ms=20, reconnect_max_ms=50)


@pytest.mark.anyio
async def test_one_address_has_few_strangers_and_loopback_is_exempt():
    strangers = Strangers(CROWDED)
    first = strangers.admit("192.0.2.1")
    strangers.admit("192.0.2.1")
    with pytest.raises(HandshakeRefused, match="of this address"):
        strangers.admit("192.0.2.1")
    for host in ("192.0.2.2", "::1", "127.0.0.1", "127.0.0.2", "127.0.0.1"):
        strangers.admit(host)
    strangers.dismiss(first)
    strangers.dismiss(first)
    strangers.admit("192.0.2.1")
    assert len(strangers) == 7


@pytest.mark.anyio
async def test_when_there_are_too_many_strangers_the_oldest_makes_way():
    patient = Strangers(NetworkTuning(strangers=2, stranger_grace_ms=60_000))
    oldest = patient.admit("127.0.0.1")
    patient.admit("127.0.0.1")
    with pytest.raises(HandshakeRefused, match="too many connections"):
        patient.admit("127.0.0.1")
    assert not oldest.cancel_called
    hasty = Strangers(NetworkTuning(strangers=2, stranger_grace_ms=0))
    scopes = [hasty.admit("127.0.0.1") for _ in range(3)]
    assert [scope.cancel_called for scope in scopes] == [True, False, False]
    assert len(hasty) == 2


@pytest.mark.anyio
async def test_how_long_a_stranger_may_stay_is_read_from_the_clock():
    clock = Hands()
    strangers = Strangers(NetworkTuning(strangers=1, stranger_grace_ms=60_000), clock)
    oldest = strangers.admit("127.0.0.1")
    clock.now += 59_999
    with pytest.raises(HandshakeRefused, match="too many connections"):
        strangers.admit("127.0.0.1")
    clock.now += 1
    strangers.admit("127.0.0.1")
    assert oldest.cancel_called


def test_equal_refusals_are_counted_together_and_the_latest_are_kept():
    refusals = Refusals()
    for _ in range(3):
        refusals.note("h", "again")
    for number in range(REFUSALS_KEPT - 1):
        refusals.note("h", f"reason {number}")
    assert refusals.latest()[0].count == 3
    refusals.note("h", "again")
    refusals.note("h", "new")
    assert [(each.reason, each.count) for each in refusals.latest()[-2:]] == [("again", 4), ("new", 1)]
    assert len(refusals.latest()) == REFUSALS_KEPT
    assert refusals.total == REFUSALS_KEPT + 4


@pytest.mark.parametrize(
    ("address", "parts"),
    [("h:1", ("h", 1)), ("[::1]:70", ("::1", 70)), ("*:0", ("*", 0)), (":1", None), ("h", None), ("h:x", None)],
)
def test_addresses(address, parts):
    if parts is None:
        with pytest.raises(ConfigurationError):
            host_and_port(address)
    else:
        assert host_and_port(address) == parts


@pytest.mark.anyio
@pytest.mark.network
async def test_members_get_in_through_a_crowd_that_says_nothing(tmp_path):
    cluster = Cluster(tmp_path, ("n0", "n1"))
    with anyio.fail_after(15):
        async with AsyncExitStack() as crowd, running(cluster.transport("n1", tuning=CROWDED)) as (victim,):
            for _ in range(30):
                crowd.push_async_callback((await anyio.connect_tcp(*host_and_port(victim.transport.address))).aclose)
            async with running(cluster.transport("n0")) as (member,):
                await member.seen.until(lambda: member.seen.ups)
                member.say("n1", b"in")
                assert await victim.seen.payloads(1) == [("n0", b"in")]
            assert any("made way" in reason or "too many" in reason for reason in victim.reasons())


@pytest.mark.anyio
@pytest.mark.network
async def test_a_system_out_of_descriptors_ends_nothing(tmp_path):
    cluster = Cluster(tmp_path, ("n0", "n1"), secure=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with anyio.fail_after(15):
        async with running(cluster.transport("n1")) as (victim,):
            with socket.socket() as waiting:
                waiting.setblocking(False)
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
                try:
                    waiting.connect_ex(host_and_port(victim.transport.address))
                    while not victim.reasons():
                        await anyio.sleep(0.002)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                assert victim.reasons() == ["cannot accept: Too many open files"]
                async with running(cluster.transport("n0")) as (member,):
                    await member.seen.until(lambda: member.seen.ups)
