"""Whether what clients saw could have come from one copy of the object that did one thing at a time.

Two checkers. `check_history` searches for an order of the operations that a sequential object allows and real time
does not forbid (Wing and Gong, JPDC 1993; Lowe, "Testing for linearizability", 2017): for each key by itself, for
linearizability is local (Herlihy and Wing, TOPLAS 1990, §3.2). `check_by_index` needs no search: where each answer says
at which place of the log it was executed, there is one order to try.

An operation whose outcome is not known may take effect at any time after its call, or never.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import accumulate, groupby
from typing import Any

import msgspec

MOST_STATES = 2_000_000
"""Configurations that one search may look at for one key; beyond it the verdict is open, and that is no success."""

NEVER = 1 << 100
"""Later than any time."""

MOST_UNKNOWN_SHARE = 0.2
"""Share of operations without a known outcome beyond which a run proves nothing."""


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One call of one client. Times are of one clock, in any unit."""

    client: int
    called: int
    returned: int | None
    """None where the outcome never became known."""
    input: Any
    output: Any = None
    """What was answered; nothing where the outcome is not known."""
    key: Hashable = None
    """Which object of many it is about."""
    index: tuple[int, ...] | None = None
    """Where in the one log it was executed, where the answer says so: the height of its batch, say."""


def _no_reads(given: Any, output: Any) -> bool:
    return False


class Model(msgspec.Struct, frozen=True):
    """A sequential object."""

    initial: Hashable
    step: Callable[[Any, Any], tuple[Any, Any]]
    """Takes state and input; returns the new state and the output that it must have."""
    reads: Callable[[Any, Any], bool] = _no_reads
    """Takes input and output (None where it is not known); says whether such an operation leaves every state as it is.

    Only speed depends on it: where such a one can come next, nothing is lost by letting it.
    """


class Verdict(msgspec.Struct, frozen=True):
    """What a checker found."""

    linearizable: bool | None
    """None where the search was given up; nobody may take that for a yes."""
    key: Hashable = None
    """The object whose history has no order."""
    reason: str = ""
    prefix: tuple[Operation, ...] = ()
    """The longest order that was found for it."""
    stuck: tuple[Operation, ...] = ()
    """The operations of which none could come next."""

    @property
    def ok(self) -> bool:
        """Say whether there is an order, for sure."""
        return self.linearizable is True


GOOD = Verdict(True)


def partition(operations: Iterable[Operation]) -> dict[Hashable, list[Operation]]:
    """Divide a history by object."""
    parts: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        parts.setdefault(operation.key, []).append(operation)
    return parts


def check_history(operations: Iterable[Operation], model: Model, *, most_states: int = MOST_STATES) -> Verdict:
    """Search for an order of each object's operations; the first object that has none decides.

    Returns at once with the reason where one operation returned before it was called.
    """
    for key, part in partition(operations).items():
        verdict = _Search(key, part, model, most_states).run()
        if not verdict.ok:
            return verdict
    return GOOD


class _Search:
    """Depth-first search over (operations done, state), each looked at once.

    Operations are sorted by their calls, and a set of them is a bit mask. One may come next if it was called before
    the first return of those that are not done.
    """

    def __init__(self, key: Hashable, operations: Sequence[Operation], model: Model, most_states: int) -> None:
        self._key = key
        self._model = model
        self._most_states = most_states
        # A read without an answer has told nobody anything.
        told = [one for one in operations if one.returned is not None or not model.reads(one.input, None)]
        self._operations = sorted(told, key=lambda one: one.called)
        self._needed = sum(1 << index for index, one in enumerate(self._operations) if one.returned is not None)
        self._calls = [one.called for one in self._operations]
        self._returns = [NEVER if one.returned is None else one.returned for one in self._operations]
        self._reads = [model.reads(one.input, one.output) for one in self._operations]
        self._best: list[int] = []
        self._stuck: list[int] = []

    def run(self) -> Verdict:
        """Return the verdict on this object."""
        for one in self._operations:
            if one.returned is not None and one.returned < one.called:
                return Verdict(False, self._key, "an operation returned before it was called", (), (one,))
        seen: set[tuple[int, Any]] = {(0, self._model.initial)}
        path: list[tuple[int, int, Any, list[int]]] = [
            (-1, 0, self._model.initial, self._candidates(0, self._model.initial))
        ]
        while path:
            _, done, state, candidates = path[-1]
            if done & self._needed == self._needed:
                return GOOD
            if not candidates:
                self._remember(path, done)
                path.pop()
                continue
            index = candidates.pop()
            operation = self._operations[index]
            after, output = self._model.step(state, operation.input)
            if operation.returned is not None and output != operation.output:
                continue
            configuration = (done | 1 << index, after)
            if configuration in seen:
                continue
            seen.add(configuration)
            if len(seen) > self._most_states:
                return Verdict(None, self._key, f"no order among the first {self._most_states} configurations")
            path.append((index, *configuration, self._candidates(*configuration)))
        order = tuple(self._operations[index] for index in self._best)
        stuck = tuple(self._operations[index] for index in self._stuck)
        return Verdict(False, self._key, "no order of the operations is possible", order, stuck)

    def _candidates(self, done: int, state: Any) -> list[int]:
        """List what may come next, the one to try first last."""
        writes, reads = self._next(done)
        for index in reads:
            one = self._operations[index]
            if self._model.step(state, one.input)[1] == one.output:
                return [index]  # whatever comes after it can do so as well as without it
        if len(writes) > 1:
            # What returned soonest is the likeliest; what never did comes last.
            writes.sort(key=self._returns.__getitem__, reverse=True)
        return writes

    def _next(self, done: int) -> tuple[list[int], list[int]]:
        """List what was called before anything else returned: what may change the state, and what does not."""
        calls, returns, is_read = self._calls, self._returns, self._reads
        first_return = NEVER
        found: list[int] = []
        index = (~done & (done + 1)).bit_length() - 1
        rest = done >> index
        for called in calls[index:]:
            if called > first_return:
                break
            if not rest & 1:
                found.append(index)
                first_return = min(first_return, returns[index])
            index += 1
            rest >>= 1
        writes: list[int] = []
        reads: list[int] = []
        for index in found:
            if calls[index] <= first_return:
                (reads if is_read[index] else writes).append(index)
        return writes, reads

    def _remember(self, path: list[tuple[int, int, Any, list[int]]], done: int) -> None:
        if len(path) > len(self._best) + 1 or not self._stuck:
            self._best = [index for index, *_ in path[1:]]
            writes, reads = self._next(done)
            self._stuck = sorted(writes + reads)


def check_by_index(operations: Iterable[Operation], model: Model) -> Verdict:
    """Replay each object's operations in the order of the log; exact, and linear but for those of one batch.

    Operations with equal indices were executed together, in an order that is not told. One without an index may stand
    wherever real time lets it stand among those that have one; mostly it is one whose outcome is not known.
    """
    history = list(operations)
    known = [one for one in history if one.index is not None]
    problem = _order_problem(known)
    if problem is not None:
        return problem
    moments = _Moments(known)
    for key, part in partition(history).items():
        verdict = check_history([moments.timed(one) for one in part], model)
        if not verdict.ok:
            return msgspec.structs.replace(verdict, key=key, reason=f"in the order of the log, {verdict.reason}")
    return GOOD


class _Moments:
    """The log's own time: an operation takes no time at all, those of one batch meet, and between batches is room."""

    def __init__(self, known: Sequence[Operation]) -> None:
        self._places = {index: 2 * place for place, index in enumerate(sorted({_index_of(one) for one in known}))}
        returned = sorted((one.returned, self._place(one)) for one in known if one.returned is not None)
        called = sorted(((one.called, self._place(one)) for one in known), reverse=True)
        self._returns = [time for time, _ in returned]
        self._latest = list(accumulate((place for _, place in returned), max))
        self._calls = [-time for time, _ in called]
        self._earliest = list(accumulate((place for _, place in called), min))

    def _place(self, one: Operation) -> int:
        return self._places[_index_of(one)]

    def timed(self, one: Operation) -> Operation:
        """Return an operation with its times in the log's time."""
        if one.index is not None:
            moment = self._place(one)
            return msgspec.structs.replace(one, called=moment, returned=moment)
        before = bisect_left(self._returns, one.called)
        called = self._latest[before - 1] + 1 if before else -1
        if one.returned is None:
            return msgspec.structs.replace(one, called=called)
        after = bisect_left(self._calls, -one.returned)
        returned = self._earliest[after - 1] - 1 if after else NEVER - 1
        return msgspec.structs.replace(one, called=called, returned=returned)


def _index_of(operation: Operation) -> tuple[int, ...]:
    return operation.index or ()


def _order_problem(operations: Sequence[Operation]) -> Verdict | None:
    """Compare the order of the log with real time, over all objects: it is one log.

    What returned before another was called was executed before it, and not in one batch with it.
    """
    latest: Operation | None = None
    for _, together in groupby(sorted(operations, key=_index_of), key=_index_of):
        batch = list(together)
        latest = max(batch if latest is None else [latest, *batch], key=lambda one: one.called)
        for one in batch:
            if one.returned is not None and one.returned < latest.called:
                reason = (
                    f"{one.index} returned before {latest.index} was called, and does not stand before it in the log"
                )
                return Verdict(False, one.key, reason, (latest,), (one,))
    return None


def history_problem(operations: Sequence[Operation], *, seconds: float, least_per_second: float) -> str | None:
    """Say why a run proves nothing whatever its order, or None: too few operations, or too many without an outcome."""
    known = sum(one.returned is not None for one in operations)
    if known < least_per_second * seconds:
        return f"{known} operations in {seconds:.0f} s are fewer than {least_per_second:g} a second"
    unknown = len(operations) - known
    if unknown > MOST_UNKNOWN_SHARE * len(operations):
        return f"{unknown} of {len(operations)} operations have no known outcome"
    return None


# --- Ready models ---------------------------------------------------------------------------------------------------


def _register(state: Any, command: tuple[Any, ...]) -> tuple[Any, Any]:
    match command:
        case ("get",):
            return state, state
        case ("put", value):
            return value, None
        case ("delete",):
            return None, state is not None
        case ("cas", expected, value):
            return (value, True) if state == expected else (state, False)
    raise ValueError(f"a register takes no {command!r}")


def _reads(command: tuple[Any, ...], output: Any) -> bool:
    return command[0] == "get" or (output is False and command[0] in ("cas", "delete"))


REGISTER = Model(None, _register, _reads)
"""One value, nothing at first: ("get",) -> value, ("put", value) -> None, ("delete",) -> whether there was something,
("cas", expected, value) -> whether it was set."""


def _counter(state: Any, command: tuple[Any, ...]) -> tuple[Any, Any]:
    match command:
        case ("get",):
            return state, state
        case ("add", number):
            return state + number, state + number
    raise ValueError(f"a counter takes no {command!r}")


COUNTER = Model(0, _counter, _reads)
"""One number, 0 at first: ("get",) -> number, ("add", number) -> sum."""


_NUMBER = re.compile(rb"-?[0-9]{1,19}")


def _key_value(state: bytes | None, command: tuple[Any, ...]) -> tuple[bytes | None, tuple[int, bytes | None]]:
    match command:
        case ("put", bytes(value)):
            return value, (0, None)
        case ("delete",):
            return None, (0 if state is not None else 1, None)
        case ("cas", expected, bytes(value)):
            return (value, (0, None)) if state == expected else (state, (2, state))
        case ("add", int(number)):
            held = b"0" if state is None else state
            total = int(held) + number if _NUMBER.fullmatch(held) else 1 << 63
            if not -(1 << 63) <= total < 1 << 63:
                return state, (4, held)
            return b"%d" % total, (0, b"%d" % total)
        case ("get",):
            return state, (0, state) if state is not None else (1, None)
    raise ValueError(f"a key takes no {command!r}")


def _leaves_a_key(command: tuple[Any, ...], output: tuple[int, bytes | None] | None) -> bool:
    return command[0] == "get" or (output is not None and output[0] != 0)


KEY_VALUE = Model(None, _key_value, _leaves_a_key)
"""One key of `bftkit.batteries.kv`: ("put", value), ("delete",), ("cas", expected, value), ("add", number), ("get",);
each with the status and the value of its result."""
