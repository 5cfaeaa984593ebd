"""A cluster of real processes that members and clients reach through proxies, with more ways to be hurt."""

from __future__ import annotations

import re
import resource
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import anyio.abc

from bftkit.runtime.client_files import CLIENT_FOLDER
from tests.integration.link_proxy import LinkProxy
from tests.integration.process_cluster import ProcessCluster

PEER_ADDRESS = re.compile(r'(?P<key>peer_address = )"(?P<address>[^"]+)"')
CLIENT_ADDRESS = re.compile(r'(?P<key>client_address = )"(?P<address>[^"]+)"')

CODES_OF_ACTIONS = {"kill": {-signal.SIGKILL}, "error": {1, 2}}
"""Exit codes with which a member may end because of what a failpoint does: a disk that fails stops a node."""

CODES_WITHOUT_SPACE = (1, 2)
"""Exit codes of a member that finds no space while it starts; once it is ready, it waits for space."""


class ProxiedCluster(ProcessCluster):
    """Each member's copy of the genesis says where *it* finds the others: at proxies of its own.

    So does the clients' copy.
    """

    def __init__(self, folder: Path, **how: object) -> None:
        super().__init__(folder, **how)  # type: ignore[arg-type]  # handed on as they are
        self.links: dict[tuple[str, str], LinkProxy] = {}
        """By who dials and who is dialled."""
        self.client_links: dict[str, LinkProxy] = {}
        """Where clients reach each member."""
        self.failpoints: dict[str, str] = {}
        """For members that are started from now on, the failpoints that are armed."""
        self.paused: set[str] = set()
        self._readies: dict[str, int] = {}
        """For each member, how often it had been ready when it was started last."""
        self._full: dict[str, bool] = {}
        """For each member, whether it was started to find no space somewhere."""
        self.allowed: dict[str, frozenset[int]] = {}
        """For members to which something is being done, the exit codes with which they may end by themselves."""
        self.deaths: Counter[int] = Counter()
        """How often members ended by themselves, by exit code."""
        self.unexcused: list[str] = []
        """Which of them had no reason to, with what they said last."""

    async def put_proxies(self, tasks: anyio.abc.TaskGroup) -> None:
        """Stand a proxy on each link; before any member is started."""
        peers, doors = (self._addresses(self.names[0], kind) for kind in (PEER_ADDRESS, CLIENT_ADDRESS))
        for name in self.names:
            between = {other: LinkProxy(peers[other]) for other in self.names if other != name}
            self.links.update({(name, other): link for other, link in between.items()})
            await self._redirect(name, PEER_ADDRESS, between, tasks)
        self.client_links = {name: LinkProxy(doors[name]) for name in self.names}
        await self._redirect(CLIENT_FOLDER, CLIENT_ADDRESS, self.client_links, tasks)

    def _genesis(self, folder: str) -> Path:
        return self.folder / folder / "genesis.toml"

    def _addresses(self, folder: str, kind: re.Pattern[str]) -> dict[str, str]:
        found = [match["address"] for match in kind.finditer(self._genesis(folder).read_text())]
        return dict(zip(self.names, found, strict=True))

    async def _redirect(
        self, folder: str, kind: re.Pattern[str], links: dict[str, LinkProxy], tasks: anyio.abc.TaskGroup
    ) -> None:
        """Write the addresses of some proxies where a copy of the genesis says those of members, and serve them."""
        proxies = {}
        for name, address in self._addresses(folder, kind).items():
            if name in links:
                proxies[address] = await links[name].listen()
                tasks.start_soon(links[name].serve)

        def other(match: re.Match[str]) -> str:
            return f'{match["key"]}"{proxies.get(match["address"], match["address"])}"'

        path = self._genesis(folder)
        path.write_text(kind.sub(other, path.read_text()))

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
        ended: dict[str, int] = {}
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[name]
                self._judge_end(name, code)
                ended[name] = code
        return ended

    def _judge_end(self, name: str, code: int) -> None:
        self.deaths[code] += 1
        starting = self._full[name] and not self.is_ready(name)
        if code not in self.allowed[name] and not (starting and code in CODES_WITHOUT_SPACE):
            last = self.log(name).splitlines()[-1:]
            self.unexcused.append(f"{name} ended with {code}: {' '.join(last)[:600]}")

    def start(self, name: str) -> None:
        """Start a member; what it may end with is what its failpoint makes of it."""
        armed = self.failpoints.get(name, "")
        kinds = [codes for action, codes in CODES_OF_ACTIONS.items() if f"={action}" in armed]
        self.allowed[name] = frozenset().union(*kinds)
        self._full[name] = "=full" in armed
        self._readies[name] = self._times_ready(name)
        super().start(name)

    def _times_ready(self, name: str) -> int:
        log = self.folder / f"{name}.log"
        return log.read_bytes().count(b'"event": "ready"') if log.exists() else 0

    def is_ready(self, name: str) -> bool:
        """Say whether a member has said that it is ready since it was started last."""
        return self._times_ready(name) > self._readies[name]

    def kill(self, name: str) -> bool:  # type: ignore[override]  # says more than its parent does
        """Kill a member, paused or not; say whether it ran."""
        self.paused.discard(name)
        ran = self.pid(name) is not None
        if ran:
            super().kill(name)
        else:
            self.ended()
        return ran

    def kill_all(self) -> None:
        """Kill all members that run at once."""
        self.ended()
        self.paused.clear()
        super().kill_all()

    def stands_still(self, name: str) -> bool:
        """Say whether a member is stopped, by whomever."""
        pid = self.pid(name)
        if pid is None:
            return False
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False  # it has just ended
        return state == "T"

    def pause(self, name: str) -> bool:
        """Let a member stand still; say whether it ran."""
        ran = self.pid(name) is not None
        self._signal(name, signal.SIGSTOP)
        self.paused.add(name)
        return ran

    def go_on(self, name: str) -> None:
        """Let it go on."""
        self.paused.discard(name)
        self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, number: signal.Signals) -> None:
        process = self._running.get(name)
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def limit(self, name: str, what: int, most: int) -> bool:
        """Bound a resource of a running member; `resource.RLIM_INFINITY` ends it. Say whether it ran."""
        pid = self.pid(name)
        if pid is not None:
            _, hard = resource.prlimit(pid, what)
            resource.prlimit(pid, what, (min(most, hard) if hard != resource.RLIM_INFINITY else most, hard))
        return pid is not None

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
