"""Links over TCP: who dials, what arrives, what happens when a peer goes away and comes again."""

import anyio
import pytest

from bftkit.errors import ConfigurationError
from bftkit.wire.framing import FrameType, encode_frame
from tests.runtime.tcp_members import Cluster, Member, running

pytestmark = [pytest.mark.anyio, pytest.mark.network]


@pytest.fixture(params=["tls", "plain"])
def cluster(request, tmp_path):
    return Cluster(tmp_path, secure=request.param == "tls")


async def all_up(members):
    names = {member.transport.name for member in members}
    for member in members:
        await member.seen.until(lambda member=member: {*member.seen.ups, member.transport.name} >= names)


async def test_all_members_find_each_other_and_talk(cluster):
    with anyio.fail_after(10):
        async with running(*map(cluster.transport, cluster.members)) as members:
            await all_up(members)
            for member in members:
                for peer in cluster.members:
                    assert member.say(peer, member.transport.name.encode()) == (peer != member.transport.name)
            for member in members:
                heard = sorted(await member.seen.payloads(2))
                assert heard == [(name, name.encode()) for name in cluster.members if name != member.transport.name]
            statistics = members[0].transport.statistics()["n1"]
            assert (statistics.connected, statistics.connects, statistics.messages_sent) == (True, 1, 1)


async def test_large_and_many_frames_arrive_in_order(cluster):
    large = encode_frame(FrameType.BULK, b"x" * 1_500_000)
    small = [encode_frame(FrameType.VOTE, number.to_bytes(4)) for number in range(5_000)]
    with anyio.fail_after(20):
        async with running(cluster.transport("n0"), cluster.transport("n1")) as (first, second):
            await all_up([first, second])
            for buffers in (*small, large):
                assert first.transport.send("n1", 1, buffers)
            first.transport.flush()
            payloads = [payload for _, payload in await second.seen.payloads(5_001)]
            assert [int.from_bytes(payload) for payload in payloads[:5_000]] == list(range(5_000))
            assert payloads[5_000] == b"x" * 1_500_000
            # A turn's messages share writes: here one of 60 kB and one of 1.5 MB.
            assert first.transport.statistics()["n1"].writes <= 3


async def test_a_peer_that_restarts_is_found_again_from_either_side(cluster):
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            members = {name: await Member(cluster.transport(name)).start(tasks) for name in ("n0", "n1")}
            await all_up(members.values())
            for restarted, other in (("n0", "n1"), ("n1", "n0")):
                stays = members[other]
                downs = len(stays.seen.downs)
                await members[restarted].stop()
                await stays.seen.until(lambda stays=stays, downs=downs: len(stays.seen.downs) > downs)
                assert not stays.say(restarted)
                members[restarted] = await Member(cluster.transport(restarted)).start(tasks)
                await all_up(members.values())
                await stays.seen.until(lambda stays=stays: len(stays.seen.ups) > len(stays.seen.downs))
                stays.say(restarted, b"welcome back")
                assert await members[restarted].seen.payloads(1) == [(other, b"welcome back")]
            for member in members.values():
                await member.stop()


async def test_the_newer_connection_replaces_the_older(cluster):
    with anyio.fail_after(10):
        async with running(cluster.transport("n1"), cluster.transport("n0")) as (accepting, first):
            await all_up([accepting, first])
            async with running(cluster.transport("n0", listen="127.0.0.1:0")):
                await accepting.seen.until(lambda: len(accepting.seen.downs) >= 1)
                assert accepting.seen.downs[0] == ("n0", "replaced by a newer connection")
                await first.seen.until(lambda: first.seen.downs)


async def test_what_is_sent_to_nobody_is_counted(cluster):
    with anyio.fail_after(10):
        async with running(cluster.transport("n0")) as (alone,):
            assert not alone.say("n1")
            assert not alone.say("nobody")
            assert alone.transport.statistics()["n1"].dropped_unconnected == 1
            while not any(refusal.count > 1 for refusal in alone.transport.refusals.latest()):
                await anyio.sleep(0.005)
            assert any("cannot connect" in reason for reason in alone.reasons())


async def test_a_slow_handler_holds_up_its_peer_alone(cluster):
    with anyio.fail_after(10):
        async with running(*map(cluster.transport, cluster.members)) as members:
            slow, quick, other = members
            await all_up(members)
            slow.seen.pause()
            quick.say("n0")
            await slow.seen.until(lambda: slow.seen.waiting)
            other.say("n1", b"free")
            assert await quick.seen.payloads(1) == [("n2", b"free")]
            slow.seen.resume()
            assert await slow.seen.payloads(1) == [("n1", b"vote")]


async def test_a_name_that_does_not_resolve_disturbs_nobody(cluster):
    cluster.peers["n2"] = "no-such-host.invalid:7000"
    with anyio.fail_after(10):
        async with running(cluster.transport("n0"), cluster.transport("n1")) as members:
            for member in members:
                await member.seen.until(lambda member=member: member.seen.ups)
            first = members[0].transport
            while not any("n2" in r.address or "no-such-host" in r.address for r in first.refusals.latest()):
                await anyio.sleep(0.005)
            assert first.statistics()["n2"].last_reason


async def test_who_is_removed_is_cut_off_and_who_is_added_is_dialled(cluster):
    without = {name: address for name, address in cluster.peers.items() if name != "n1"}
    members = {name: key for name, key in cluster.members.items() if name != "n1"}
    with anyio.fail_after(10):
        async with running(cluster.transport("n0"), cluster.transport("n1")) as (staying, leaving):
            await all_up([staying, leaving])
            staying.transport.change_members(without, members)
            await leaving.seen.until(lambda: leaving.seen.downs)
            assert leaving.seen.downs == [("n0", "the other side refused: no member any more")]
            await staying.seen.until(lambda: staying.seen.downs)
            assert staying.seen.downs == [("n1", "no member any more")]
            staying.transport.change_members(cluster.peers, cluster.members)
            await leaving.seen.until(lambda: len(leaving.seen.ups) == 2)
            leaving.say("n0", b"again")
            assert await staying.seen.payloads(1) == [("n1", b"again")]


async def test_an_address_in_use_is_a_configuration_error(cluster):
    with anyio.fail_after(10):
        async with running(cluster.transport("n0")):
            with pytest.raises(ConfigurationError, match="cannot listen"):
                await cluster.transport("n0").run(None)
