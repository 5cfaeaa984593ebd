"""Hurt a cluster of real processes for as long as you like, under load, and look whether anybody could tell.

``python -m tests.integration.fault_run --seconds 1800 --seed 7`` starts four nodes (or ``--replicas`` of ``--engine``)
with mutual TLS and fsync on, and a proxy on each link between them; lets clients read, write, compare and add; kills,
pauses, cuts off and starves the nodes; and ends with one JSON document. The exit code is 0 only if the history is
linearizable, nothing that was acknowledged is gone, all states are equal, and the run was busy enough to prove
anything.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec

from bftkit import Client
from bftkit.testing.linearizability import history_problem
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
ENOUGH_FREE_BYTES = 200_000
"""How much a file may still grow when its length is bounded."""


class Nemesis:
    """Does harm, one thing after another, and counts it."""

    def __init__(self, cluster: ProxiedCluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self.hits: Counter[str] = Counter()
        self.ways: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
            ("kill", self.kill),
            ("kill all", self.kill_all),
            ("pause", self.pause),
            ("partition", self.partition),
            ("one-way cut", self.one_way),
            ("isolated node", self.isolate),
            ("clog", self.clog),
            ("delay", self.delay),
            ("throttle", self.throttle),
            ("reset", self.reset),
            ("truncate", self.truncate),
            ("file limit", self.file_limit),
            ("descriptor limit", self.descriptor_limit),
            ("slow disk", self.slow_disk),
            ("failpoint", self.failpoint),
        )

    async def run(self, until: anyio.Event) -> None:
        """Go through all ways in an order of its own, again and again."""
        while not until.is_set():
            for name, way in self._chance.sample(self.ways, len(self.ways)):
                if until.is_set():
                    return
                await way()
                self.hits[name] += 1
                await self.restart_ended()
                await anyio.sleep(self._chance.uniform(0.5, 2.0))

    async def restart_ended(self) -> None:
        """Start again whoever has stopped by itself, as whatever supervises a node would."""
        for name, code in self._cluster.ended().items():
            self.hits[f"ended with {code}"] += 1
            self._cluster.failpoints.pop(name, None)
            self._cluster.start(name)

    def _one(self) -> str:
        return self._chance.choice(self._cluster.names)

    async def _for_a_while(self, least: float = 0.5, most: float = 4.0) -> None:
        await anyio.sleep(self._chance.uniform(least, most))

    async def kill(self) -> None:
        name = self._one()
        self._cluster.kill(name)
        await self._for_a_while(0.0, 3.0)
        self._cluster.start(name)

    async def kill_all(self) -> None:
        self._cluster.kill_all()
        for name in self._cluster.names:
            self._cluster.start(name)
        await self._for_a_while(2.0, 4.0)

    async def pause(self) -> None:
        name = self._one()
        self._cluster.pause(name)
        await self._for_a_while()
        self._cluster.go_on(name)

    async def partition(self) -> None:
        names = self._chance.sample(self._cluster.names, len(self._cluster.names))
        cut = self._chance.randint(1, len(names) - 1)
        await self._swallow([*self._cluster.between(names[:cut], names[cut:])])

    async def isolate(self) -> None:
        name = self._one()
        await self._swallow([*self._cluster.between([name], [one for one in self._cluster.names if one != name])])

    async def _swallow(self, links: list[Any]) -> None:
        for link in links:
            link.there.swallows = link.back.swallows = True
        await self._for_a_while(1.0, 5.0)
        for link in links:
            link.there.swallows = link.back.swallows = False
            link.reset()  # what was swallowed is missing from what TLS has counted

    async def one_way(self) -> None:
        name = self._one()
        for (dialer, dialled), link in self._cluster.links.items():
            if name in (dialer, dialled):
                (link.there if dialer == name else link.back).stop()
        await self._for_a_while(1.0, 4.0)
        for (dialer, dialled), link in self._cluster.links.items():
            if name in (dialer, dialled):
                (link.there if dialer == name else link.back).release()

    async def clog(self) -> None:
        links = self._chance.sample(list(self._cluster.links.values()), 6)
        for link in links:
            link.there.stop()
            link.back.stop()
            await anyio.sleep(self._chance.uniform(0.0, 0.4))
        for link in self._chance.sample(links, len(links)):
            link.there.release()
            link.back.release()
            await anyio.sleep(self._chance.uniform(0.0, 0.4))

    async def delay(self) -> None:
        links = self._chance.sample(list(self._cluster.links.values()), 6)
        for link in links:
            link.there.delay_s, link.back.delay_s = self._chance.uniform(0, 0.2), self._chance.uniform(0, 0.2)
        await self._for_a_while(2.0, 5.0)
        for link in links:
            link.there.delay_s = link.back.delay_s = 0.0

    async def throttle(self) -> None:
        name = self._one()
        links = [link for pair, link in self._cluster.links.items() if name in pair]
        for link in links:
            link.there.bytes_per_s = link.back.bytes_per_s = 20_000.0
        await self._for_a_while(2.0, 5.0)
        for link in links:
            link.there.bytes_per_s = link.back.bytes_per_s = 0.0

    async def reset(self) -> None:
        broken = sum(link.reset() for link in self._cluster.links.values())
        self.hits["connections reset"] += broken

    async def truncate(self) -> None:
        for link in self._chance.sample(list(self._cluster.links.values()), 4):
            way = self._chance.choice((link.there, link.back))
            way.cuts_next = True

    async def file_limit(self) -> None:
        """Let no file of a node grow much longer: writes fail as on a disk without space, or the node stops."""
        name = self._one()
        self._cluster.limit(name, resource.RLIMIT_FSIZE, self._cluster.longest_file(name) + ENOUGH_FREE_BYTES)
        await self._for_a_while(2.0, 5.0)
        self._cluster.limit(name, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)

    async def descriptor_limit(self) -> None:
        """Let a node open nothing more, while its connections break."""
        name = self._one()
        self._cluster.limit(name, resource.RLIMIT_NOFILE, self._cluster.open_files(name))
        for pair, link in self._cluster.links.items():
            if name in pair:
                link.reset()
        await self._for_a_while(1.0, 3.0)
        self._cluster.limit(name, resource.RLIMIT_NOFILE, 4_096)

    async def slow_disk(self) -> None:
        await self._restart_with(f"wal.before_fsync=sleep={self._chance.randint(20, 400)}@1+")
        await self._for_a_while(3.0, 6.0)

    async def failpoint(self) -> None:
        place = self._chance.choice(
            ("wal.before_fsync", "wal.after_fsync", "wal.before_write", "snapshot.before_rename")
        )
        await self._restart_with(f"{place}=kill@{self._chance.randint(1, 60)}")
        await self._for_a_while(2.0, 5.0)

    async def _restart_with(self, failpoint: str) -> None:
        name = self._one()
        self._cluster.kill(name)
        self._cluster.failpoints[name] = failpoint
        self._cluster.start(name)
        del self._cluster.failpoints[name]

    async def heal(self) -> None:
        """End everything, and start everybody afresh who may be armed or slow."""
        for link in self._cluster.links.values():
            link.heal()
        for name in sorted(self._cluster.paused):
            self._cluster.go_on(name)
        await self.restart_ended()
        for name in self._cluster.names:
            self._cluster.kill(name)
            self._cluster.start(name)


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
    nemesis = Nemesis(cluster, chance)
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
            codes = cluster.exit_codes()
        tasks.cancel_scope.cancel()
    return _report(history, nemesis, elapsed, equal, codes)


def _report(
    history: History, nemesis: Nemesis, elapsed: float, equal: bool, codes: dict[str, int | None]
) -> dict[str, Any]:
    operations = history.load
    known = sum(one.returned is not None for one in operations)
    begun = time.monotonic()
    verdict = history.judge()
    lost = 0 if verdict.ok else history.lost
    missing = sorted({name for name, _ in nemesis.ways} - set(nemesis.hits))
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
        "faults": dict(sorted(nemesis.hits.items())),
        "linearizable": verdict.linearizable,
        "reason": verdict.reason,
        "where": [msgspec.to_builtins(one) for one in (*verdict.prefix[-3:], *verdict.stuck)] if not verdict.ok else [],
        "lost": lost,
        "equal_state": equal,
        "invalid": problem or "",
        "unread": history.unread,
        "missing_faults": missing,
        "check_s": round(time.monotonic() - begun, 1),
        "ok": verdict.ok and equal and problem is None and not lost and set(codes.values()) == {None},
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
