"""A cluster of real processes whose members reach each other through proxies, with more ways to be hurt."""

from __future__ import annotations

import re
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import anyio.abc

from tests.integration.link_proxy import LinkProxy
from tests.integration.process_cluster import ProcessCluster

PEER_ADDRESS = re.compile(r'(?P<key>peer_address = )"(?P<address>[^"]+)"')


class ProxiedCluster(ProcessCluster):
    """Each member's copy of the genesis says where *it* finds the others: at proxies of its own."""

    def __init__(self, folder: Path, **how: object) -> None:
        super().__init__(folder, **how)  # type: ignore[arg-type]  # handed on as they are
        self.links: dict[tuple[str, str], LinkProxy] = {}
        """By who dials and who is dialled."""
        self.failpoints: dict[str, str] = {}
        """For members that are started from now on, the failpoints that are armed."""
        self.paused: set[str] = set()

    async def put_proxies(self, tasks: anyio.abc.TaskGroup) -> None:
        """Stand a proxy on each link; before any member is started."""
        addresses = dict(zip(self.names, self._addresses(self.names[0]), strict=True))
        for name in self.names:
            found: dict[str, str] = {}
            for other in self.names:
                if other != name:
                    link = self.links[name, other] = LinkProxy(addresses[other])
                    found[addresses[other]] = await link.listen()
                    tasks.start_soon(link.serve)
            self._redirect(name, found)

    def _genesis(self, name: str) -> Path:
        return self.folder / name / "genesis.toml"

    def _addresses(self, name: str) -> list[str]:
        return [found["address"] for found in PEER_ADDRESS.finditer(self._genesis(name).read_text())]

    def _redirect(self, name: str, found: dict[str, str]) -> None:
        def other(match: re.Match[str]) -> str:
            return f'{match["key"]}"{found.get(match["address"], match["address"])}"'

        path = self._genesis(name)
        path.write_text(PEER_ADDRESS.sub(other, path.read_text()))

    def environment(self, name: str) -> dict[str, str]:
        """Arm the failpoints of a member."""
        armed = self.failpoints.get(name)
        return {"BFTKIT_FAILPOINT": armed} if armed else {}

    def pid(self, name: str) -> int | None:
        """Return the process of a member that runs."""
        process = self._running.get(name)
        return process.pid if process is not None and process.poll() is None else None

    def ended(self) -> dict[str, int]:
        """Name the members that have ended by themselves, with their exit codes, and let go of them."""
        ended = {name: process.poll() for name, process in self._running.items() if process.poll() is not None}
        for name in ended:
            del self._running[name]
        return {name: code for name, code in ended.items() if code is not None}

    def kill(self, name: str) -> None:
        """Kill a member, paused or not."""
        self.paused.discard(name)
        super().kill(name)

    def pause(self, name: str) -> None:
        """Let a member stand still."""
        self._signal(name, signal.SIGSTOP)
        self.paused.add(name)

    def go_on(self, name: str) -> None:
        """Let it go on."""
        self.paused.discard(name)
        self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, number: signal.Signals) -> None:
        process = self._running.get(name)
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def limit(self, name: str, what: int, most: int) -> None:
        """Bound a resource of a running member; `resource.RLIM_INFINITY` ends it."""
        pid = self.pid(name)
        if pid is not None:
            _, hard = resource.prlimit(pid, what)
            resource.prlimit(pid, what, (min(most, hard) if hard != resource.RLIM_INFINITY else most, hard))

    def longest_file(self, name: str) -> int:
        """Return the length of a member's longest file."""
        return max(
            (path.stat().st_size for path in (self.folder / name / "data").rglob("*") if path.is_file()), default=0
        )

    def open_files(self, name: str) -> int:
        """Count the descriptors that a member has open."""
        pid = self.pid(name)
        return len(list(Path(f"/proc/{pid}/fd").iterdir())) if pid is not None else 0

    def between(self, side: list[str], other: list[str]) -> Iterator[LinkProxy]:
        """Go through the links between two groups, whoever dials."""
        for (dialer, dialled), link in self.links.items():
            if (dialer in side and dialled in other) or (dialer in other and dialled in side):
                yield link
