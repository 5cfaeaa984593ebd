"""One run of the benchmark: a fresh cluster of processes, a load, the figures, and nothing left behind."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from bftkit.bench.load import LoadConfig
from bftkit.bench.load_process import LoadProcess
from bftkit.bench.machine import syncs_to_disk
from bftkit.bench.processes import LocalCluster
from bftkit.bench.report import all_synced, all_use_tls, run_figures
from bftkit.errors import NotReady
from bftkit.runtime.testnet import NewCluster, write_testnet

WARM_UP_S = 1.5
START_AND_END_S = 60.0
"""How long everything but the load may take before the run is given up."""


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    engine: str
    replicas: int
    payload_bytes: int
    submit: Literal["batch", "single"]
    outstanding: int
    rate: float | None
    seconds: float


def run_once(
    plan: RunPlan, on_event: Callable[[dict[str, Any]], None], directory: Path | None = None
) -> dict[str, Any]:
    """Measure one combination and return its figures; the cluster's files live in a temporary folder.

    NotReady where the cluster does not come up or the generator gives up.
    """
    with tempfile.TemporaryDirectory(prefix="bftkit-bench-", dir=directory) as folder:
        net = Path(folder) / "net"
        write_testnet(net, NewCluster(replicas=plan.replicas, engine=plan.engine, base_port=0, cluster_id="bench"))
        with LocalCluster(net) as cluster:
            config = LoadConfig(
                client=str(net),
                payload_bytes=plan.payload_bytes,
                submit=plan.submit,
                outstanding=plan.outstanding,
                rate=plan.rate,
                warm_up_s=WARM_UP_S,
                seconds=plan.seconds,
                sessions=min(plan.replicas, 4),
                pids=tuple(cluster.pids),
            )
            with LoadProcess(config) as load:
                deadline = time.monotonic() + plan.seconds + START_AND_END_S
                while "done" not in load.events:
                    if time.monotonic() > deadline:
                        raise NotReady("the load generator does not come to an end")
                    event = load.next_event(1.0)
                    if event is not None:
                        on_event(event)
                measured = load.events["measured"]
                return run_figures(
                    msgspec.structs.asdict(plan),
                    load.events,
                    tls=all_use_tls(measured["after"]),
                    fsync=syncs_to_disk(net) and all_synced(measured["before"], measured["after"]),
                )
