"""What the replicas hold after a load: nothing lost, nothing done twice, all states equal, or else the difference.

Everything here is read from the replicas, and believed only where enough of them agree. What is said to be lost was
looked for by reads that are not older than the last acknowledgement.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import anyio
import msgspec

from bftkit.batteries.kv import get, result
from bftkit.bench.workload import Lane, counted, counter_key, expected_root

POLL_S = 0.1
"""Pause between two looks at whether the replicas have come to rest."""
QUERIES_AT_ONCE = 64


class Replicas(Protocol):
    """What is asked of the replicas; a `Client` does it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, by index."""
        ...

    async def status(self, *, timeout: float) -> list[dict[str, Any]]:
        """Return what each says about itself."""
        ...

    async def query(self, request: bytes, /) -> bytes:
        """Return an answer that reflects everything that was acknowledged before."""
        ...


class Verdict(msgspec.Struct, frozen=True):
    """What the replicas' states say about a load."""

    lost: int
    """Commands that were acknowledged and are not in the state."""
    duplicated: int
    """Commands that are in the state more often than they were submitted."""
    equal_state: bool
    """Whether every member has the same height and the same state root."""
    unknown: int
    """Commands whose outcome the generator never learnt."""
    agreeing: int
    """How many members have the most common height and root."""

    @property
    def is_good(self) -> bool:
        """Say whether nothing is wrong."""
        return self.equal_state and not self.lost and not self.duplicated


async def judge(
    client: Replicas, lanes: Sequence[Lane], unknown: set[int], payload_bytes: int, settle_s: float
) -> Verdict:
    """Look at all replicas once they have come to rest, or after `settle_s` seconds.

    `unknown` are the lanes with an envelope whose outcome is not known.
    """
    states = await _settled(client, settle_s)
    agreeing = max((states.count(state) for state in states if state is not None), default=0)
    equal = agreeing == len(states)
    envelope = len(lanes[0].commands()) if lanes else 0
    root = expected_root(lanes, payload_bytes).hex()
    if equal and not unknown and states[0] is not None and states[0][1] == root:
        return Verdict(0, 0, equal, 0, agreeing)
    lost, duplicated = await _count(client, lanes, unknown, payload_bytes)
    return Verdict(lost, duplicated, equal, len(unknown) * envelope, agreeing)


async def _settled(client: Replicas, settle_s: float) -> list[tuple[int, str] | None]:
    """Return each member's height and root, once all are equal or the time is up."""
    states: list[tuple[int, str] | None] = []
    with anyio.move_on_after(settle_s):
        while True:
            states = [_state(status) for status in await client.status(timeout=settle_s)]
            if None not in states and len(set(states)) == 1:
                break
            await anyio.sleep(POLL_S)
    return states or [None] * len(client.names)


def _state(status: dict[str, Any]) -> tuple[int, str] | None:
    return None if "error" in status else (status["applied"], status["state_root"])


async def _count(client: Replicas, lanes: Sequence[Lane], unknown: set[int], payload_bytes: int) -> tuple[int, int]:
    """Count from the counters, and from the last puts of each lane, what is missing or too much."""
    lost = duplicated = 0
    waiting = list(lanes)

    async def work() -> None:
        nonlocal lost, duplicated
        while waiting:
            lane = waiting.pop()
            envelope = len(lane.commands())
            difference = counted(await client.query(get(counter_key(lane.number, payload_bytes)))) - lane.executed
            if difference < 0:
                lost -= difference * envelope
            elif difference > (1 if lane.number in unknown else 0):
                duplicated += difference * envelope
            elif lane.number not in unknown:
                lost += await _missing_puts(client, lane)

    async with anyio.create_task_group() as tasks:
        for _ in range(min(QUERIES_AT_ONCE, len(waiting))):
            tasks.start_soon(work)
    return lost, duplicated


async def _missing_puts(client: Replicas, lane: Lane) -> int:
    """Count the keys of a lane that do not hold what its last answered envelope put there."""
    missing = 0
    for command in lane.last():
        _, key, value = msgspec.msgpack.decode(command)
        missing += result(await client.query(get(key))).value != value
    return missing
