"""Hurt a cluster of real processes for as long as you like, under load, and look whether anybody could tell.

``python -m tests.integration.fault_run --seconds 1800 --seed 7`` starts four nodes (or ``--replicas`` of ``--engine``)
with mutual TLS and fsync on, and a proxy on each link between them and to clients; lets clients read, write, compare
and add; kills, pauses, cuts off and starves the nodes; and ends with one JSON document. The exit code is 0 only if the
history is linearizable, nothing that was acknowledged is gone, all states are equal, no node ended or complained
without a reason, and the run was busy enough to prove anything.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec

from bftkit import Client
from bftkit.testing.linearizability import history_problem
from tests.integration.process_nemesis import ProcessNemesis
from tests.integration.proxied_cluster import ProxiedCluster
from tests.integration.workload import Group, History, Worker, read_back

GROUPS = 6
"""Groups of workers that share a key each; every third one counts."""
WORKERS = 4
"""Workers in each group."""
LEAST_PER_SECOND = 20.0
"""A run with fewer known outcomes proves nothing."""
LONG_S = 240.0
"""A run of so long must have done everything at least once."""
HEAL_S = 120.0
"""How long a healed cluster may take until all states are equal."""


async def equal_states(client: Client) -> bool:
    """Wait until all replicas hold the same state; say whether they came to it in time."""
    with anyio.move_on_after(HEAL_S):
        while True:
            status = await client.status()
            roots = {(one.get("applied"), one.get("state_root"), one.get("sessions_root")) for one in status}
            if len(status) == len(client.names) and len(roots) == 1 and status[0].get("applied"):
                return True
            await anyio.sleep(0.2)
    return False


BRISK: dict[str, dict[str, object]] = {"pbft": {"view_timeout_ms": 400}}
"""Options for engines whose usual timeouts are long beside the faults."""
FEWEST = 3
"""Members of the smallest cluster: with fewer links than it has there is not enough to clog."""


async def hurt(
    folder: Path, seconds: float, seed: int, say: Callable[[str], None], engine: str = "pbft", replicas: int = 4
) -> dict[str, Any]:
    """Run for so long; return what is to be reported."""
    chance = random.Random(seed)
    history, over = History(), anyio.Event()
    groups = [Group(number, number % 3 == 2) for number in range(GROUPS)]
    workers = [Worker(number, groups[number % GROUPS], history, random.Random(f"{seed}/{number}"))
               for number in range(GROUPS * WORKERS)]  # fmt: skip
    cluster = ProxiedCluster(folder, replicas=replicas, engine=engine, **BRISK.get(engine, {}))
    nemesis = ProcessNemesis(cluster, chance)
    async with anyio.create_task_group() as tasks:
        await cluster.put_proxies(tasks)
        with cluster:
            async with Client.open(cluster.folder, sessions=8) as client, anyio.create_task_group() as load:
                started = time.monotonic()
                history.last_answer = started
                for worker in workers:
                    load.start_soon(worker.work, client, over)
                load.start_soon(nemesis.run, over)
                while time.monotonic() < started + seconds:
                    await anyio.sleep(min(10.0, seconds / 4))
                    passed = time.monotonic() - started
                    say(f"{passed:6.0f} s  {len(history.operations)} calls, {sum(nemesis.hits.values())} faults")
                over.set()
            elapsed = time.monotonic() - started
            await nemesis.heal()
            async with Client.open(cluster.folder, sessions=8, open_timeout_s=HEAL_S) as client:
                equal = await equal_states(client)
                await read_back(client, history, groups)
            cluster.ended()
        tasks.cancel_scope.cancel()
    return _report(history, nemesis, elapsed, equal, [*cluster.unexcused, *complaints(cluster)])


def complaints(cluster: ProxiedCluster) -> list[str]:
    """List what no member may say, whatever is done to it: that it has a defect, or another state than the others."""
    return [
        f"{name}: {line[:600]}"
        for name in cluster.names
        for line in cluster.log(name).splitlines()
        if any(word in line for word in ("Traceback", '"traceback"', "diverged"))
    ]


def _report(history: History, nemesis: ProcessNemesis, elapsed: float, equal: bool, wrong: list[str]) -> dict[str, Any]:
    operations = history.load
    known = sum(one.returned is not None for one in operations)
    begun = time.monotonic()
    verdict = history.judge()
    lost = 0 if verdict.ok else history.lost
    missing = sorted(nemesis.missing)
    problem = history_problem(operations, seconds=elapsed, least_per_second=LEAST_PER_SECOND)
    if history.unread:
        problem = f"{history.unread} keys were not read in the end"
    if elapsed >= LONG_S and missing:
        problem = f"no {', no '.join(missing)}"
    return {
        "seconds": round(elapsed, 1),
        "operations": len(operations),
        "per_second": round(known / elapsed, 1),
        "unknown": len(operations) - known,
        "refused": history.refused,
        "queries": history.queries,
        "keys": len({one.key for one in operations}),
        "longest_gap_s": round(history.longest_gap_s, 2),
        "faults": {name: count for name, count in sorted(nemesis.hits.items()) if count},
        "linearizable": verdict.linearizable,
        "reason": verdict.reason,
        "where": [msgspec.to_builtins(one) for one in (*verdict.prefix[-3:], *verdict.stuck)] if not verdict.ok else [],
        "lost": lost,
        "equal_state": equal,
        "invalid": problem or "",
        "unread": history.unread,
        "missing_faults": missing,
        "wrong": wrong[:20],
        "check_s": round(time.monotonic() - begun, 1),
        "ok": verdict.ok and equal and problem is None and not lost and not wrong,
    }


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", default="pbft")
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where to keep logs and data; a temporary folder by default")
    given = parser.parse_args(arguments)
    if given.replicas < FEWEST:
        parser.error(f"--replicas is {FEWEST} at least")

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = anyio.run(hurt, folder, given.seconds, given.seed, say, given.engine, given.replicas)
    sys.stdout.write(json.dumps(report, indent=1, default=str) + "\n")
    return 0 if report["ok"] else 4


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
