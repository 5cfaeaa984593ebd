"""The demonstration: a cluster of processes under load, its leader killed and brought back, and a checked verdict."""

import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bftkit.bench.load import LoadConfig
from bftkit.bench.load_process import LoadProcess
from bftkit.bench.machine import syncs_to_disk
from bftkit.bench.processes import LocalCluster, process_age_s
from bftkit.bench.report import commit_gap_ms
from bftkit.errors import NotReady
from bftkit.runtime.testnet import NewCluster, write_testnet

KILL_AT_S = 3.0
"""When the leader is killed, from the start of the process."""
RESTART_AT_S = 6.0
BEFORE_AND_AFTER_S = 4.0
"""What start, drain and verdict take of the whole, in seconds."""
WORTH_A_LINE_MS = 300
"""A pause between commits that is told."""
PATIENCE_S = 45.0
"""How long the load may take longer than it should before the demonstration is given up."""
CAUGHT_UP_WITHIN = 64
"""Heights that a replica may be behind the foremost under load and still count as caught up."""


class StoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to show."""

    engine: str = "pbft"
    replicas: int = 4
    seconds: float = 12.0
    kill: bool = True
    payload_bytes: int = 128
    outstanding: int = 6400


class Story:
    """One demonstration; `tell` gets each thing worth a line, `show` the replicas' latest words and the rate."""

    def __init__(
        self,
        plan: StoryPlan,
        tell: Callable[[float, str], None],
        show: Callable[[float, Sequence[dict[str, Any]], float], None],
    ) -> None:
        self._plan = plan
        self._tell = tell
        self._show = show
        self._began = time.monotonic() - process_age_s()
        self._status: list[dict[str, Any]] = []
        self._rate = 0.0
        self._victim = ""
        self._killed_at = 0.0
        self._restarted = False
        self._height_at_kill = 0
        self._view_at_kill = 0
        self._caught_up: int | None = None

    def _now(self) -> float:
        return time.monotonic() - self._began

    def run(self) -> dict[str, Any]:
        """Show everything and return the figures; NotReady where the cluster does not come up."""
        plan = self._plan
        with tempfile.TemporaryDirectory(prefix="bftkit-demo-") as folder:
            net = Path(folder) / "net"
            write_testnet(net, NewCluster(replicas=plan.replicas, engine=plan.engine, base_port=0, cluster_id="demo"))
            config = LoadConfig(
                client=str(net),
                payload_bytes=plan.payload_bytes,
                outstanding=plan.outstanding,
                warm_up_s=0.5,
                seconds=max(2.0, plan.seconds - BEFORE_AND_AFTER_S),
                sessions=min(plan.replicas, 4),
                watch=True,
            )
            with LocalCluster(net) as cluster, LoadProcess(config) as load:
                self._follow(cluster, load)
                return self._figures(load, fsync=syncs_to_disk(net), processes=len(cluster.nodes))

    def _follow(self, cluster: LocalCluster, load: LoadProcess) -> None:
        """Act when it is time, and tell what the load generator reports, until it is done."""
        deadline = self._plan.seconds + PATIENCE_S
        while "done" not in load.events:
            if self._now() > deadline:
                raise NotReady("the load does not come to an end")
            if self._plan.kill:
                self._act(cluster)
            event = load.next_event(0.05)
            if event is not None:
                self._on_event(event)

    def _act(self, cluster: LocalCluster) -> None:
        now = self._now()
        if not self._victim and now >= KILL_AT_S and self._status:
            self._kill(cluster)
        elif self._victim and not self._restarted and now >= max(RESTART_AT_S, self._killed_at - self._began + 2.0):
            node = cluster.nodes[self._victim]
            node.wait(0)
            node.start()
            self._restarted = True
            self._tell(self._now(), f"+ started {self._victim} again")

    def _kill(self, cluster: LocalCluster) -> None:
        leaders = Counter(status["leader"] for status in self._status if status.get("leader"))
        if not leaders:
            return
        self._victim = leaders.most_common(1)[0][0]
        self._view_at_kill = max(status["view"] for status in self._status if "view" in status)
        self._height_at_kill = max(status["applied"] for status in self._status if "applied" in status)
        cluster.nodes[self._victim].signal(signal.SIGKILL)
        self._killed_at = time.monotonic()
        self._tell(self._now(), f"x killed leader {self._victim}")

    # -- what the load generator reports ----------------------------------------------------------

    def _on_event(self, event: dict[str, Any]) -> None:
        at = event["at"] - self._began
        match event["event"]:
            case "first_commit":
                self._tell(at, "first commit")
            case "resumed" if self._killed_at and event["after_ms"] >= WORTH_A_LINE_MS:
                self._tell(at, f"~ commits again{self._new_leader()} · no commit for {event['after_ms']} ms")
            case "progress":
                self._rate = event["throughput_tx_s"]
            case "measuring":
                self._status = event["status"]
            case "replicas":
                self._status = event["status"]
                self._note_return(at)
        self._show(at, self._status, self._rate)

    def _new_leader(self) -> str:
        views = [(status["view"], status["leader"]) for status in self._status if "view" in status]
        view, leader = max(views, default=(0, None))
        return f", view {self._view_at_kill} -> {view}, leader {leader}" if view > self._view_at_kill else ""

    def _note_return(self, at: float) -> None:
        if not self._restarted or self._caught_up is not None:
            return
        applied = {status["id"]: status["applied"] for status in self._status if "applied" in status}
        own = applied.get(self._victim)
        if own is not None and own >= max(applied.values()) - CAUGHT_UP_WITHIN:
            self._caught_up = own - self._height_at_kill
            self._tell(at, f"+ {self._victim} back, caught up {self._caught_up:,} batches")

    def _figures(self, load: LoadProcess, *, fsync: bool, processes: int) -> dict[str, Any]:
        done, measured, verdict = load.events["done"], load.events["measured"], load.events["done"]["verdict"]
        good = verdict["equal_state"] and not (verdict["lost"] or verdict["duplicated"] or verdict["unknown"])
        leader_kill = None
        if self._victim:
            leader_kill = {
                "leader": self._victim,
                "commit_gap_ms": commit_gap_ms(done["replies_ms"], int(self._killed_at * 1000)),
                "caught_up_batches": self._caught_up,
            }
        return {
            "verdict": "ok" if good else "violated",
            "engine": self._plan.engine,
            "swapped_to": None,
            "replicas": self._plan.replicas,
            "committed": done["acknowledged"],
            "lost": verdict["lost"],
            "duplicated": verdict["duplicated"],
            "unknown": verdict["unknown"],
            "equal_state": verdict["equal_state"],
            "agreeing": verdict["agreeing"],
            "first_commit_s": round(load.events["first_commit"]["at"] - self._began, 3),
            "leader_kill": leader_kill,
            "swap": None,
            "throughput_tx_s": measured["throughput_tx_s"],
            "tls": True,
            "fsync": fsync,
            "processes": processes,
            "seconds": round(self._now(), 2),
        }
