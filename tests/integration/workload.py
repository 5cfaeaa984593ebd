"""Clients whose calls are written down: reads, writes and comparisons on keys that are fresh after a while."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any

import anyio

from bftkit import Client, NotReady, OutcomeUnknown, Overloaded, Receipt, Rejected
from bftkit.batteries.kv import add, compare_and_set, delete, get, put, read, result
from bftkit.testing.linearizability import (
    KEY_VALUE,
    Operation,
    Verdict,
    check_by_index,
    check_history,
    partition,
)

CALLS_PER_KEY = 90
"""Calls after which a group of workers turns to another key: long histories take long to search."""

PATIENCE_S = 20.0
"""After so long a call has no known outcome."""

READERS = 10_000
"""Clients with this number and above read everything in the end."""

READ_TRIES = 20
"""How often a key is read in the end until there is an answer."""

QUERIES = 0.6
"""Share of reads that are queries, and no commands."""

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
    queries: int = 0
    """Reads that were no commands."""
    longest_gap_s: float = 0.0
    """Longest time without any answer."""
    last_answer: float = field(default_factory=time.monotonic)

    def answered(self) -> None:
        now = time.monotonic()
        self.longest_gap_s = max(self.longest_gap_s, now - self.last_answer)
        self.last_answer = now

    @property
    def load(self) -> list[Operation]:
        """The calls of the workers, without those that read everything in the end."""
        return [one for one in self.operations if one.client < READERS]

    @property
    def unread(self) -> int:
        """How many keys were used, and not read in the end."""
        used = {one.key for one in self.operations}
        return len(used - {one.key for one in self.operations if one.client >= READERS and one.returned is not None})

    @property
    def lost(self) -> int:
        """How many keys lost an acknowledged write: all was well until they were read in the end."""
        lost = 0
        for part in partition(self.operations).values():
            before = [one for one in part if one.client < READERS]
            lost += not check_history(part, KEY_VALUE).ok and check_history(before, KEY_VALUE).ok
        return lost

    def judge(self) -> Verdict:
        """Look for an order of all calls, by search and by the log."""
        verdict = check_by_index(self.operations, KEY_VALUE)
        return check_history(self.operations, KEY_VALUE) if verdict.ok else verdict


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

    async def call(self, client: Client, key: bytes, call: tuple[tuple[Any, ...], bytes] | None = None) -> bool:
        """Make one call and write down what came of it; say whether it was answered."""
        meaning, command = call or self._draw(key)
        called = time.monotonic_ns()
        if meaning == ("get",) and self._chance.random() < QUERIES:
            return await self._query(client, key, called)
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
            return True
        return False

    async def _query(self, client: Client, key: bytes, called: int) -> bool:
        """Read without a command; a read without an answer has told nobody anything."""
        try:
            reading = await client.read(get(key), timeout=PATIENCE_S)
        except (NotReady, Overloaded):
            self._history.refused += 1
            await anyio.sleep(PAUSE_S)
            return False
        self._history.answered()
        self._history.queries += 1
        returned = time.monotonic_ns()
        # One replica that answers alone says how far it was; only a read that was ordered has a batch of its own.
        index = (reading.height,) if reading.ordered and reading.height is not None else None
        output = self._output(reading.answer)
        self._history.operations.append(Operation(self.number, called, returned, ("get",), output, key.decode(), index))
        return True

    def _note(self, key: bytes, meaning: tuple[Any, ...], called: int, receipt: Receipt | None) -> None:
        returned = time.monotonic_ns() if receipt is not None else None
        output = self._output(receipt.result) if receipt is not None else None
        index = (receipt.height,) if receipt is not None else None
        self._history.operations.append(Operation(self.number, called, returned, meaning, output, key.decode(), index))

    def _output(self, data: bytes) -> tuple[int, bytes | None]:
        answer = result(data)
        if answer.status or answer.value is not None:
            # It says what the key holds.
            self._seen = answer.value
        return int(answer.status), answer.value


async def read_back(client: Client, history: History, groups: list[Group]) -> None:
    """Read every key that was ever used, so that what was acknowledged and is gone shows."""
    async with anyio.create_task_group() as tasks:
        for group in groups:
            tasks.start_soon(
                _read_keys, client, group, Worker(READERS + group.number, group, history, random.Random(0))
            )


async def _read_keys(client: Client, group: Group, reader: Worker) -> None:
    for window in range(group.window + 1):
        key = Group(group.number, group.counts, window).key
        for _ in range(READ_TRIES):
            if await reader.call(client, key, (("get",), read(key))):
                break
