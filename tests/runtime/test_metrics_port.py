"""The metrics page, fetched as a monitoring system would."""

import anyio
import pytest

from bftkit.batteries.kv import KeyValue, put
from bftkit.runtime.metrics_port import MetricsPort
from bftkit.runtime.node import Node
from bftkit.runtime.node_files import node_parts
from bftkit.runtime.node_metrics import NodeMetrics
from bftkit.runtime.shard import ShardCounters
from bftkit.runtime.testnet import NewCluster, choose_ports, write_testnet

pytestmark = pytest.mark.anyio


async def _fetch(port: int, request: bytes) -> bytes:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(request)
        answer = b""
        with anyio.fail_after(5):
            try:
                while True:
                    answer += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return answer


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics HTTP/1.1", b"200 OK"),
        (b"GET /metrics?x=1 HTTP/1.0", b"200 OK"),
        (b"GET / HTTP/1.1", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1", b"405 Method Not Allowed"),
        (b"\x00\xff", b"400 Bad Request"),
    ],
)
async def test_only_the_page_is_served(request_line: bytes, status: bytes) -> None:
    (port,) = choose_ports(0, 1)
    async with anyio.create_task_group() as tasks:
        await tasks.start(MetricsPort(f"127.0.0.1:{port}", lambda: "numbers 1\n").run)
        answer = await _fetch(port, request_line + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert (b"numbers 1" in answer) == (status == b"200 OK")
        tasks.cancel_scope.cancel()


async def test_a_node_shows_what_it_has_done(tmp_path) -> None:
    write_testnet(tmp_path / "net", NewCluster(base_port=0))
    (port,) = choose_ports(0, 1)
    nodes = [node_parts(str(tmp_path / "net" / f"n{index}" / "bftkit.toml")) for index in range(4)]
    nodes[0].metrics_address = f"127.0.0.1:{port}"
    async with anyio.create_task_group() as tasks:

        async def run(index: int) -> None:
            async with Node(KeyValue(), nodes[index]):
                await anyio.sleep_forever()

        for index in (1, 2, 3):
            tasks.start_soon(run, index)
        async with Node(KeyValue(), nodes[0]) as node:
            await node.submit(put(b"k", b"v"), timeout=20)
            page = (await _fetch(port, b"GET /metrics HTTP/1.1\r\n\r\n")).decode()
        tasks.cancel_scope.cancel()
    labels = '{engine="pbft",group="0"}'
    assert f"consensus_committed_blocks_total{labels} 2" in page
    assert f"consensus_current_round{labels} 0" in page
    assert f"consensus_head_finality_delay_ms_count{labels} 2" in page
    assert f"bftkit_commands_total{labels} 2" in page


async def test_every_counter_of_the_shard_is_shown() -> None:
    metrics = NodeMetrics(0, "pbft")
    page = metrics.registry.exposition()
    for name in ShardCounters.__struct_fields__:
        assert f"bftkit_{name}_total" in page
