"""The demonstration: a cluster of processes under load, its leader killed and brought back, and a checked verdict."""

import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bftkit.bench.load import LoadConfig
from bftkit.bench.load_process import LoadProcess
from bftkit.bench.machine import syncs_to_disk
from bftkit.bench.processes import LocalCluster, process_age_s
from bftkit.bench.report import acknowledged_after, all_synced, all_use_tls, commit_gap_ms, longest_pause_ms
from bftkit.core.quorum import Quorum
from bftkit.errors import NotReady
from bftkit.plugins import load_engine
from bftkit.runtime.testnet import NewCluster, write_testnet

KILL_AT_S = 3.0
"""When the leader is killed, from the start of the process."""
RESTART_AT_S = 6.0
"""When it is started again, if the others commit without it by then."""
ALONE_AT_LEAST_S = 2.0
"""How long the others have to do without it."""
ALONE_AT_MOST_S = 8.0
HOLD_S = 5.0
"""How much longer the load goes on until the killed replica has caught up."""
BEFORE_AND_AFTER_S = 2.5
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
        self._resumed: dict[str, Any] | None = None
        """A report that commands are answered again, until the replicas have said under which leader."""
        self._caught_up_under_load = False
        self._goes_on = False
        """Whether it has been told that the others commit without the killed leader."""
        self._kill = False

    def _now(self) -> float:
        return time.monotonic() - self._began

    def run(self) -> dict[str, Any]:
        """Show everything and return the figures; NotReady where the cluster does not come up."""
        plan = self._plan
        why_not = no_kill_reason(plan)
        self._kill = why_not is None
        if why_not is not None:
            self._tell(self._now(), f"- no kill: {why_not}")
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
                hold_s=HOLD_S,
            )
            with LocalCluster(net) as cluster, LoadProcess(config) as load:
                self._follow(cluster, load)
                self._at_the_end(load)
                return self._figures(load, on_disk=syncs_to_disk(net), processes=len(cluster.nodes))

    def _follow(self, cluster: LocalCluster, load: LoadProcess) -> None:
        """Act when it is time, and tell what the load generator reports, until it is done."""
        deadline = self._plan.seconds + PATIENCE_S
        held = True
        while "done" not in load.events:
            if self._now() > deadline:
                raise NotReady("the load does not come to an end")
            if self._kill:
                self._act(cluster)
            if held and "measured" in load.events and (self._caught_up is not None or not self._kill):
                load.enough()
                held = False
            event = load.next_event(0.05)
            if event is not None:
                self._on_event(event)

    def _act(self, cluster: LocalCluster) -> None:
        now = self._now()
        if not self._victim:
            if now >= KILL_AT_S and self._status:
                self._kill_leader(cluster)
        elif not self._restarted:
            alone_s = time.monotonic() - self._killed_at
            is_shown = self._goes_on and alone_s >= ALONE_AT_LEAST_S and now >= RESTART_AT_S
            if is_shown or alone_s >= ALONE_AT_MOST_S:
                node = cluster.nodes[self._victim]
                node.wait(0)
                node.start()
                self._restarted = True
                self._tell(self._now(), f"+ started {self._victim} again")

    def _kill_leader(self, cluster: LocalCluster) -> None:
        view, leader = newest_view(self._status)
        if leader is None:
            return
        self._victim = leader
        self._view_at_kill = view
        self._height_at_kill = max(status["applied"] for status in self._status if "applied" in status)
        cluster.nodes[leader].signal(signal.SIGKILL)
        self._killed_at = time.monotonic()
        self._tell(self._now(), f"x killed leader {leader}")

    # -- what the load generator reports ----------------------------------------------------------

    def _on_event(self, event: dict[str, Any]) -> None:
        at = event["at"] - self._began
        match event["event"]:
            case "first_commit":
                self._tell(at, "first commit")
            case "resumed" if self._killed_at and event["at"] > self._killed_at:
                self._on_resumed(event)
            case "progress":
                self._rate = event["throughput_tx_s"]
            case "measuring":
                self._status = event["status"]
            case "replicas":
                self._status = event["status"]
                self._note_leader(event)
                self._note_return(at)
        self._show(at, self._status, self._rate)

    def _on_resumed(self, event: dict[str, Any]) -> None:
        if not self._goes_on:
            # A second, shorter pause may end before the replicas have answered; the longest is the one to tell.
            if self._resumed is None or event["after_ms"] > self._resumed["after_ms"]:
                self._resumed = event
        elif event["after_ms"] >= WORTH_A_LINE_MS:
            self._tell(event["at"] - self._began, f"~ commits again · no commit for {event['after_ms']} ms")

    def _note_leader(self, event: dict[str, Any]) -> None:
        """Tell that commits go on, once replicas that were asked after that have said under which leader."""
        resumed = self._resumed
        if resumed is None or event["asked_at"] < resumed["at"]:
            return
        view, leader = newest_view(event["status"])
        if leader is None:
            return
        self._resumed = None
        # A pause that ended under the old leader began before the kill and is not what is waited for.
        if leader != self._victim:
            self._goes_on = True
            self._tell(
                resumed["at"] - self._began,
                f"~ commits again, view {self._view_at_kill} -> {view}, leader {leader} · "
                f"no commit for {resumed['after_ms']} ms",
            )

    def _note_return(self, at: float, when: str = "") -> None:
        if not self._restarted or self._caught_up is not None:
            return
        applied = {status["id"]: status["applied"] for status in self._status if "applied" in status}
        own = applied.get(self._victim)
        # An answer from before the kill may come after it: nobody has caught up who is not beyond that.
        if own is not None and own > self._height_at_kill and own >= max(applied.values()) - CAUGHT_UP_WITHIN:
            self._caught_up = own - self._height_at_kill
            self._tell(at, f"+ {self._victim} back, caught up {self._caught_up:,} batches{when}")

    def _at_the_end(self, load: LoadProcess) -> None:
        """Look once more for the killed replica, now that the load has ended."""
        self._caught_up_under_load = self._caught_up is not None
        self._status = load.events["done"]["status"]
        self._note_return(self._now(), " once the load had ended")

    def _leader_kill(self, done: dict[str, Any]) -> dict[str, Any] | None:
        if not self._victim:
            return None
        killed_ms = int(self._killed_at * 1000)
        return {
            "leader": self._victim,
            "commit_gap_ms": commit_gap_ms(done["replies_ms"], killed_ms),
            "longest_pause_ms": longest_pause_ms(done["replies_ms"], killed_ms),
            "committed_after": acknowledged_after(done["replies_ms"], done["acknowledged_by"], killed_ms),
            "caught_up_batches": self._caught_up,
            "caught_up_under_load": self._caught_up_under_load,
        }

    def _figures(self, load: LoadProcess, *, on_disk: bool, processes: int) -> dict[str, Any]:
        done, measured, verdict = load.events["done"], load.events["measured"], load.events["done"]["verdict"]
        leader_kill = self._leader_kill(done)
        missing = what_is_missing(leader_kill, self._plan.outstanding) if self._kill else []
        return {
            "verdict": verdict_word(verdict, missing),
            "missing": missing,
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
            "tls": all_use_tls(done["status"]),
            "fsync": on_disk and all_synced(measured["before"], done["status"]),
            "processes": processes,
            "seconds": round(self._now(), 2),
        }


def no_kill_reason(plan: StoryPlan) -> str | None:
    """Say why the leader of such a cluster is not killed; None where it is."""
    if not plan.kill:
        return "as asked for"
    faults = Quorum.of(load_engine(plan.engine).fault_model, plan.replicas).faults
    return None if faults else f"a cluster of {plan.replicas} on {plan.engine} cannot do without any replica"


def newest_view(status: Sequence[dict[str, Any]]) -> tuple[int, str | None]:
    """Return the highest view that a replica is in, and its leader; (0, None) where none answers."""
    views = [(replica["view"], replica["leader"]) for replica in status if replica.get("leader")]
    return max(views, default=(0, None))


def what_is_missing(leader_kill: dict[str, Any] | None, outstanding: int) -> list[str]:
    """List what a demonstration that kills a leader has not shown.

    `outstanding` commands were on their way at most, so of more that were answered after the kill, some were
    submitted after it.
    """
    if leader_kill is None:
        return ["no leader was killed"]
    missing = []
    if leader_kill["committed_after"] <= outstanding:
        missing.append(f"no commits after {leader_kill['leader']} was killed")
    if leader_kill["caught_up_batches"] is None:
        missing.append(f"{leader_kill['leader']} did not catch up")
    return missing


def verdict_word(verdict: dict[str, Any], missing: Sequence[str]) -> str:
    """Return "violated" where the replicas hold what they must not, "incomplete" where something was not shown."""
    if verdict["lost"] or verdict["duplicated"] or not verdict["equal_state"]:
        return "violated"
    return "incomplete" if missing else "ok"
