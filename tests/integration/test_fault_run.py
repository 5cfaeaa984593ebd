"""A short run of the nemesis against real processes, and the proxy by itself."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest

from tests.integration import process_nemesis
from tests.integration.fault_run import hurt
from tests.integration.link_proxy import LinkProxy
from tests.integration.process_nemesis import ProcessNemesis
from tests.integration.proxied_cluster import ProxiedCluster

SECONDS = 35.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.processes
@pytest.mark.timeout(290)
@pytest.mark.anyio
async def test_nobody_can_tell_that_the_nodes_are_hurt(tmp_path: Path) -> None:
    report = await hurt(tmp_path, SECONDS, 11, lambda line: None)
    sys.stdout.write(f"{report}\n")
    assert report["invalid"] == ""
    assert report["wrong"] == []
    assert report["ok"]
    assert report["linearizable"] is True, report["reason"]
    assert report["equal_state"]
    assert report["lost"] == report["unread"] == 0
    assert report["queries"] > 0
    assert report["unknown"] <= 0.2 * report["operations"]
    assert len(report["faults"]) > 4
    assert all(report["faults"].values())


class Helpless(ProcessNemesis):
    """Has one way to do harm, which works from the second time on, and one that never does."""

    def __init__(self, over: anyio.Event) -> None:
        super().__init__(ProxiedCluster.__new__(ProxiedCluster), random.Random(1))
        self.tries = Counter[str]()
        self._over = over
        self.ways = (("second", self.second), ("never", self.never))

    async def second(self) -> bool:
        self.tries["second"] += 1
        return self.tries["second"] > 1

    async def never(self) -> bool:
        self.tries["never"] += 1
        if self.tries["never"] == 3:
            self._over.set()
        return False

    def restart_ended(self) -> None:
        """There is nobody."""


@pytest.mark.anyio
async def test_a_way_that_does_nothing_does_not_count_as_done(monkeypatch):
    monkeypatch.setattr(process_nemesis, "PAUSE_S", (0.0, 0.0))
    over = anyio.Event()
    nemesis = Helpless(over)
    assert nemesis.missing == ["second", "never"]
    await nemesis.do("second", nemesis.second)
    assert nemesis.missing == ["second", "never"]
    await nemesis.run(over)
    assert nemesis.tries["never"] == 3
    assert nemesis.missing == ["never"]
    assert dict(nemesis.hits) == {"second": nemesis.tries["second"] - 1}


# --- The proxy ------------------------------------------------------------------------------------------------------


class Wire:
    """A proxy between a client and an echo."""

    def __init__(self) -> None:
        self.proxy: LinkProxy

    async def open(self, tasks) -> anyio.abc.ByteStream:
        multi = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        port = multi.extra(anyio.abc.SocketAttribute.local_port)
        tasks.start_soon(self._serve, multi)
        self.proxy = LinkProxy(f"127.0.0.1:{port}")
        address = await self.proxy.listen()
        tasks.start_soon(self.proxy.serve)
        self.stream = await anyio.connect_tcp("127.0.0.1", int(address.rpartition(":")[2]))
        return self.stream

    async def _serve(self, listener) -> None:
        async with listener:
            await listener.serve(self._echo)

    async def _echo(self, stream) -> None:
        async with stream:
            try:
                async for data in stream:
                    await stream.send(data)
            except (anyio.BrokenResourceError, OSError):
                return


@pytest.mark.network
@pytest.mark.anyio
async def test_bytes_pass_and_a_stopped_direction_loses_none():
    wire = Wire()
    async with anyio.create_task_group() as tasks:
        stream = await wire.open(tasks)
        with anyio.fail_after(20):
            await stream.send(b"one")
            assert await stream.receive() == b"one"
            wire.proxy.back.stop()
            await stream.send(b"two")
            while wire.proxy.there.passed < 6:
                await anyio.sleep(0.001)
            with anyio.move_on_after(0.05) as waited:
                await stream.receive()
            assert waited.cancelled_caught
            wire.proxy.back.release()
            assert await stream.receive() == b"two"
        await stream.aclose()
        tasks.cancel_scope.cancel()


@pytest.mark.network
@pytest.mark.anyio
async def test_what_is_swallowed_is_gone_and_a_reset_is_seen():
    wire = Wire()
    async with anyio.create_task_group() as tasks:
        stream = await wire.open(tasks)
        with anyio.fail_after(20):
            await stream.send(b"one")
            assert await stream.receive() == b"one"
            wire.proxy.there.swallows = True
            await stream.send(b"gone")
            with anyio.move_on_after(0.05) as waited:
                await stream.receive()
            assert waited.cancelled_caught
            assert wire.proxy.reset() == 1
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
        await stream.aclose()
        tasks.cancel_scope.cancel()


@pytest.mark.network
@pytest.mark.anyio
async def test_a_cut_ends_the_connection_in_the_middle():
    wire = Wire()
    async with anyio.create_task_group() as tasks:
        stream = await wire.open(tasks)
        with anyio.fail_after(20):
            wire.proxy.back.cuts_next = True
            await stream.send(b"0123456789")
            assert await stream.receive() == b"01234"
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
        await stream.aclose()
        tasks.cancel_scope.cancel()
