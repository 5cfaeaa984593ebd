"""Clients whose calls are written down: reads, writes and comparisons on keys that are fresh after a while."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any

import anyio

from bftkit import Client, NotReady, OutcomeUnknown, Overloaded, Receipt, Rejected
from bftkit.batteries.kv import Status, add, compare_and_set, delete, put, read, result
from bftkit.testing.linearizability import COUNTER, REGISTER, Operation, Verdict, check_by_index, check_history

CALLS_PER_KEY = 90
"""Calls after which a group of workers turns to another key: long histories take long to search."""

PATIENCE_S = 20.0
"""After so long a call has no known outcome."""

PAUSE_S = 0.05
"""Pause of a worker that was refused."""


@dataclass
class Group:
    """Workers that share a key, so that their calls meet."""

    number: int
    counts: bool
    """Whether its keys are counters, or registers."""
    window: int = 0
    calls: int = 0

    @property
    def key(self) -> bytes:
        return b"%s-%d-%d" % (b"counter" if self.counts else b"register", self.number, self.window)

    def take(self) -> bytes:
        """Return the key of the next call."""
        if self.calls >= CALLS_PER_KEY:
            self.window, self.calls = self.window + 1, 0
        self.calls += 1
        return self.key


@dataclass
class History:
    """All calls of all workers."""

    operations: list[Operation] = field(default_factory=list)
    refused: int = 0
    longest_gap_s: float = 0.0
    """Longest time without any answer."""
    last_answer: float = field(default_factory=time.monotonic)

    def answered(self) -> None:
        now = time.monotonic()
        self.longest_gap_s = max(self.longest_gap_s, now - self.last_answer)
        self.last_answer = now

    def judge(self) -> Verdict:
        """Look for an order of all calls, by search and by the log."""
        for counts, model in ((True, COUNTER), (False, REGISTER)):
            some = [one for one in self.operations if (str(one.key).startswith("counter")) is counts]
            for check in (check_by_index, check_history):
                verdict = check(some, model)
                if not verdict.ok:
                    return verdict
        return Verdict(True)


class Worker:
    """One caller, with one call at a time."""

    def __init__(self, number: int, group: Group, history: History, chance: random.Random) -> None:
        self.number = number
        self._group = group
        self._history = history
        self._chance = chance
        self._seen: bytes | None = None
        self._values = 0

    async def work(self, client: Client, until: anyio.Event) -> None:
        while not until.is_set():
            await self.call(client, self._group.take())

    def _draw(self, key: bytes) -> tuple[tuple[Any, ...], bytes]:
        """Return the call as the model knows it, and as a command."""
        if self._group.counts:
            if self._chance.random() < 0.3:
                return ("get",), read(key)
            number = self._chance.randint(1, 9)
            return ("add", number), add(key, number)
        self._values += 1
        value = b"%d.%d" % (self.number, self._values)
        kind = self._chance.random()
        if kind < 0.35:
            return ("get",), read(key)
        if kind < 0.65:
            return ("put", value), put(key, value)
        if kind < 0.7:
            return ("delete",), delete(key)
        return ("cas", self._seen, value), compare_and_set(key, self._seen, value)

    async def call(self, client: Client, key: bytes, call: tuple[tuple[Any, ...], bytes] | None = None) -> None:
        """Make one call and write down what came of it."""
        meaning, command = call or self._draw(key)
        called = time.monotonic_ns()
        try:
            receipt = await client.submit(command, timeout=PATIENCE_S)
        except OutcomeUnknown:
            self._note(key, meaning, called, None)
        except (Overloaded, NotReady, Rejected):
            # A definite no: it was not executed, and never will be.
            self._history.refused += 1
            await anyio.sleep(PAUSE_S)
        else:
            self._history.answered()
            self._note(key, meaning, called, receipt)

    def _note(self, key: bytes, meaning: tuple[Any, ...], called: int, receipt: Receipt | None) -> None:
        returned = time.monotonic_ns() if receipt is not None else None
        output = self._output(meaning, receipt.result) if receipt is not None else None
        index = (receipt.height,) if receipt is not None else None
        self._history.operations.append(Operation(self.number, called, returned, meaning, output, key.decode(), index))

    def _output(self, meaning: tuple[Any, ...], data: bytes) -> Any:
        answer = result(data)
        if self._group.counts:
            return int(answer.value or b"0")
        match meaning[0]:
            case "get":
                self._seen = answer.value if answer.status is Status.OK else None
                return self._seen
            case "put":
                return None
            case "delete":
                return answer.status is Status.OK
            case _:
                return answer.status is Status.OK


async def read_back(client: Client, history: History, groups: list[Group]) -> None:
    """Read every key that was ever used, so that what was acknowledged and is gone shows."""
    reader = {group.number: Worker(10_000 + group.number, group, history, random.Random(0)) for group in groups}
    async with anyio.create_task_group() as tasks:
        for group in groups:
            tasks.start_soon(_read_keys, client, group, reader[group.number])


async def _read_keys(client: Client, group: Group, reader: Worker) -> None:
    for window in range(group.window + 1):
        key = Group(group.number, group.counts, window).key
        await reader.call(client, key, (("get",), read(key)))
