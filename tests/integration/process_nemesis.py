"""Whoever hurts a cluster of real processes: kills, pauses, limits, failpoints, damaged files, and everything on links,
those of clients too.

A way counts when what it needs was there: a process that ran, or a connection.

The address space (RLIMIT_AS) is not bounded. Where memory ends, Python raises MemoryError at any allocation, also in
the middle of its own library, and compiled parts abort: a node that goes on after that proves nothing, and one that
ends proves no more than SIGKILL, which is what a machine without memory sends.
"""

from __future__ import annotations

import random
import re
import resource
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import anyio

from bftkit.runtime.failpoint_names import registered
from tests.integration.link_proxy import LinkProxy
from tests.integration.proxied_cluster import ProxiedCluster

ENOUGH_FREE_BYTES = 200_000
"""How much a file may still grow when its length is bounded."""
PAUSE_S = (0.5, 2.0)
"""Least and longest pause between two things that are done."""
START_S = 20.0
"""How long a member may take to be ready, or to say why it is not going to be."""
LEAST_DAMAGED_BYTES = 4_096
"""Shorter files may hold nothing that a later sync vouches for."""
OFTEN = re.compile(r"shard\.(before|after)_s|shard\.before_flush|wal\.|application\.\w+_(apply|reply)")
"""Failpoints that a node passes all the time."""


class ProcessNemesis:
    """Does harm, one thing after another, and counts it."""

    def __init__(self, cluster: ProxiedCluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self.hits: Counter[str] = Counter()
        self.ways: tuple[tuple[str, Callable[[], Awaitable[bool]]], ...] = (
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
            ("clients delayed", self.delay_clients),
            ("clients throttled", self.throttle_clients),
            ("clients reset", self.reset_clients),
            ("clients truncated", self.truncate_clients),
            ("file limit", self.file_limit),
            ("descriptor limit", self.descriptor_limit),
            ("slow disk", self.slow_disk),
            ("failpoint kill", self.kill_at_failpoint),
            ("failpoint error", self.error_at_failpoint),
            ("failpoint full", self.full_at_failpoint),
            ("failpoint stop", self.stop_at_failpoint),
            ("rot", self.rot),
        )
        """What can be done, each with whether it could be done to somebody."""

    async def run(self, until: anyio.Event) -> None:
        """Go through all ways in an order of its own, again and again."""
        while not until.is_set():
            for name, way in self._chance.sample(self.ways, len(self.ways)):
                if until.is_set():
                    return
                await self.do(name, way)
                self.restart_ended()
                await anyio.sleep(self._chance.uniform(*PAUSE_S))

    async def do(self, name: str, way: Callable[[], Awaitable[bool]]) -> None:
        """Do one thing, and count it if there was somebody to whom it could be done."""
        if await way():
            self.hits[name] += 1

    @property
    def missing(self) -> list[str]:
        """List the ways that nobody has met up to now."""
        return [name for name, _ in self.ways if not self.hits[name]]

    def restart_ended(self) -> None:
        """Start again whoever has stopped by itself, as whatever supervises a node would."""
        for name, code in self._cluster.ended().items():
            self.hits[f"ended with {code}"] += 1
            self._cluster.start(name)

    def _one(self) -> str:
        return self._chance.choice(self._cluster.names)

    async def _for_a_while(self, least: float = 0.5, most: float = 4.0) -> None:
        await anyio.sleep(self._chance.uniform(least, most))

    # -- processes --------------------------------------------------------------------------------------

    async def kill(self) -> bool:
        name = self._one()
        ran = self._cluster.kill(name)
        await self._for_a_while(0.0, 3.0)
        self._cluster.start(name)
        return ran

    async def kill_all(self) -> bool:
        ran = all(self._cluster.pid(name) is not None for name in self._cluster.names)
        self._cluster.kill_all()
        for name in self._cluster.names:
            self._cluster.start(name)
        await self._for_a_while(2.0, 4.0)
        return ran

    async def pause(self) -> bool:
        name = self._one()
        ran = self._cluster.pause(name)
        await self._for_a_while()
        self._cluster.go_on(name)
        return ran

    async def file_limit(self) -> bool:
        """Let no file of a node grow much longer: writes fail as on a disk without space, or the node stops."""
        name = self._one()
        most = self._cluster.longest_file(name) + ENOUGH_FREE_BYTES
        return await self._limit(name, resource.RLIMIT_FSIZE, most, resource.RLIM_INFINITY)

    async def descriptor_limit(self) -> bool:
        """Let a node open nothing more, while its connections break: no segment and no snapshot either."""
        name = self._one()
        for link in self._links_of(name):
            link.reset()
        return await self._limit(name, resource.RLIMIT_NOFILE, self._cluster.open_files(name), 4_096)

    async def _limit(self, name: str, what: int, most: int, afterwards: int) -> bool:
        """Bound a resource for a while; a node that cannot write for want of it may stop."""
        usual = self._cluster.allowed[name]
        self._cluster.allowed[name] = usual | {1}
        ran = self._cluster.limit(name, what, most)
        await self._for_a_while(2.0, 5.0)
        self._cluster.limit(name, what, afterwards)
        await anyio.sleep(1.0)  # whoever stops over it has done so by now
        if self._cluster.pid(name) is not None:
            self._cluster.allowed[name] = usual
        return ran

    # -- failpoints -------------------------------------------------------------------------------------

    async def slow_disk(self) -> bool:
        _, ran = self._restart_with(f"wal.before_fsync=sleep={self._chance.randint(20, 400)}@1+")
        await self._for_a_while(3.0, 6.0)
        return ran

    async def kill_at_failpoint(self) -> bool:
        return await self._at_failpoint("kill")

    async def error_at_failpoint(self) -> bool:
        return await self._at_failpoint("error")

    async def full_at_failpoint(self) -> bool:
        return await self._at_failpoint("full")

    async def stop_at_failpoint(self) -> bool:
        return await self._at_failpoint("stop")

    async def _at_failpoint(self, action: str) -> bool:
        """Restart a member that does this where it passes a place, and see to it that it goes on afterwards."""
        places = [each.name for each in registered() if each.may_be_full or action != "full"]
        place = self._chance.choice(places)
        most = 60 if OFTEN.match(place) else 2
        name, ran = self._restart_with(f"{place}={action}@{self._chance.randint(1, most)}")
        await self._for_a_while(2.0, 5.0)
        if self._cluster.pid(name) is None:
            self.hits[f"ended at a failpoint: {action}"] += 1
        elif self._cluster.stands_still(name):
            self.hits["stopped at a failpoint"] += 1
            self._cluster.go_on(name)
        return ran

    def _restart_with(self, failpoint: str) -> tuple[str, bool]:
        name = self._one()
        ran = self._cluster.kill(name)
        self._cluster.failpoints[name] = failpoint
        self._cluster.start(name)
        del self._cluster.failpoints[name]
        return name, ran

    # -- files ------------------------------------------------------------------------------------------

    async def rot(self) -> bool:
        """Damage a closed file of a member that is down: it must refuse to start, or come back without the file.

        Whoever refuses gets its file back as it was: it has done nothing meanwhile. The second half of a log
        is spared, for nobody can tell damage to its very end from a write that was torn.
        """
        name = self._one()
        ran = self._cluster.kill(name)
        folder = self._cluster.folder / name / "data"
        files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".log", ".snapshot")]
        files = [path for path in files if path.stat().st_size >= LEAST_DAMAGED_BYTES]
        if not files:
            self._cluster.start(name)
            return False
        path = self._chance.choice(files)
        at, bit = self._chance.randrange(path.stat().st_size // 2), 1 << self._chance.randrange(8)
        flip(path, at, bit)
        self._cluster.start(name)
        self._cluster.allowed[name] = frozenset({1, 2})
        with anyio.move_on_after(START_S):
            while not self._cluster.is_ready(name) and self._cluster.pid(name) is not None:
                await anyio.sleep(0.1)
        if self._cluster.pid(name) is None:
            self.hits["refused a damaged file"] += 1
            self._cluster.ended()
            flip(path, at, bit)
            self._cluster.start(name)
        else:
            self.hits["did without a damaged file"] += 1
        return ran

    # -- links ------------------------------------------------------------------------------------------

    def _links_of(self, name: str) -> list[LinkProxy]:
        return [link for pair, link in self._cluster.links.items() if name in pair]

    async def partition(self) -> bool:
        names = self._chance.sample(self._cluster.names, len(self._cluster.names))
        cut = self._chance.randint(1, len(names) - 1)
        return await self._swallow([*self._cluster.between(names[:cut], names[cut:])])

    async def isolate(self) -> bool:
        return await self._swallow(self._links_of(self._one()))

    async def _swallow(self, links: list[LinkProxy]) -> bool:
        there = connected(links)
        for link in links:
            link.there.swallows = link.back.swallows = True
        await self._for_a_while(1.0, 5.0)
        for link in links:
            link.there.swallows = link.back.swallows = False
            link.reset()  # what was swallowed is missing from what TLS has counted
        return there

    async def one_way(self) -> bool:
        name = self._one()
        ways = [
            (link.there if dialer == name else link.back)
            for (dialer, dialled), link in self._cluster.links.items()
            if name in (dialer, dialled)
        ]
        there = connected(self._links_of(name))
        for way in ways:
            way.stop()
        await self._for_a_while(1.0, 4.0)
        for way in ways:
            way.release()
        return there

    def _some_links(self, count: int) -> list[LinkProxy]:
        return self._chance.sample(list(self._cluster.links.values()), count)

    async def clog(self) -> bool:
        links = self._some_links(6)
        there = connected(links)
        for link in links:
            link.there.stop()
            link.back.stop()
            await anyio.sleep(self._chance.uniform(0.0, 0.4))
        for link in self._chance.sample(links, len(links)):
            link.there.release()
            link.back.release()
            await anyio.sleep(self._chance.uniform(0.0, 0.4))
        return there

    async def delay(self) -> bool:
        return await self._delay(self._some_links(6))

    async def delay_clients(self) -> bool:
        return await self._delay(self._some_doors())

    def _some_doors(self) -> list[LinkProxy]:
        """Draw some members, all of them at times, and return where clients reach them."""
        doors = list(self._cluster.client_links.values())
        return self._chance.sample(doors, self._chance.randint(1, len(doors)))

    async def _delay(self, links: list[LinkProxy]) -> bool:
        there = connected(links)
        for link in links:
            link.there.delay_s, link.back.delay_s = self._chance.uniform(0, 0.2), self._chance.uniform(0, 0.2)
        await self._for_a_while(2.0, 5.0)
        for link in links:
            link.there.delay_s = link.back.delay_s = 0.0
        return there

    async def throttle(self) -> bool:
        return await self._throttle(self._links_of(self._one()))

    async def throttle_clients(self) -> bool:
        return await self._throttle(self._some_doors())

    async def _throttle(self, links: list[LinkProxy]) -> bool:
        there = connected(links)
        for link in links:
            link.there.bytes_per_s = link.back.bytes_per_s = 20_000.0
        await self._for_a_while(2.0, 5.0)
        for link in links:
            link.there.bytes_per_s = link.back.bytes_per_s = 0.0
        return there

    async def reset(self) -> bool:
        return self._reset(self._cluster.links.values())

    async def reset_clients(self) -> bool:
        return self._reset(self._some_doors())

    def _reset(self, links: Iterable[LinkProxy]) -> bool:
        broken = sum(link.reset() for link in links)
        if broken:
            self.hits["connections reset"] += broken
        return broken > 0

    async def truncate(self) -> bool:
        return self._truncate(self._some_links(6))

    async def truncate_clients(self) -> bool:
        return self._truncate(self._some_doors())

    def _truncate(self, links: Iterable[LinkProxy]) -> bool:
        there = [link for link in links if link.connections]
        for link in there:
            self._chance.choice((link.there, link.back)).cuts_next = True
        return bool(there)

    async def heal(self) -> None:
        """End everything, and start everybody afresh who may be armed or slow."""
        for link in (*self._cluster.links.values(), *self._cluster.client_links.values()):
            link.heal()
        for name in self._cluster.names:
            if self._cluster.stands_still(name):
                self._cluster.go_on(name)
        self.restart_ended()
        for name in self._cluster.names:
            self._cluster.kill(name)
            self._cluster.start(name)


def connected(links: Iterable[LinkProxy]) -> bool:
    """Say whether any of some links carries a connection."""
    return any(link.connections for link in links)


def flip(path: Path, at: int, bit: int) -> None:
    """Flip one bit of a file; a second time, it is as it was."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ bit]))
