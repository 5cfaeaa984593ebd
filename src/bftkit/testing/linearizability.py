"""Whether what clients saw could have come from one copy of the object that did one thing at a time.

Two checkers. `check_history` searches for an order of the operations that a sequential object allows and real time
does not forbid (Wing and Gong, JPDC 1993; Lowe, "Testing for linearizability", 2017): for each key by itself, for
linearizability is local (Herlihy and Wing, TOPLAS 1990, §3.2). `check_by_index` needs no search: where each answer says
at which place of the log it was executed, there is one order to try.

An operation whose outcome is not known may take effect at any time after its call, or never.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
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


class Model(msgspec.Struct, frozen=True):
    """A sequential object."""

    initial: Hashable
    step: Callable[[Any, Any], tuple[Any, Any]]
    """Takes state and input; returns the new state and the output that it must have."""


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
        self._operations = sorted(operations, key=lambda one: one.called)
        self._model = model
        self._most_states = most_states
        self._needed = sum(1 << index for index, one in enumerate(self._operations) if one.returned is not None)
        self._calls = [one.called for one in self._operations]
        self._returns = [NEVER if one.returned is None else one.returned for one in self._operations]
        self._best: list[int] = []
        self._stuck: list[int] = []

    def run(self) -> Verdict:
        """Return the verdict on this object."""
        for one in self._operations:
            if one.returned is not None and one.returned < one.called:
                return Verdict(False, self._key, "an operation returned before it was called", (), (one,))
        seen: set[tuple[int, Any]] = {(0, self._model.initial)}
        path: list[tuple[int, int, Any, list[int]]] = [(-1, 0, self._model.initial, self._candidates(0))]
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
            path.append((index, *configuration, self._candidates(configuration[0])))
        order = tuple(self._operations[index] for index in self._best)
        stuck = tuple(self._operations[index] for index in self._stuck)
        return Verdict(False, self._key, "no order of the operations is possible", order, stuck)

    def _candidates(self, done: int) -> list[int]:
        """List what may come next, the one to try first last."""
        calls, returns = self._calls, self._returns
        first_return = NEVER
        found: list[int] = []
        index = (~done & (done + 1)).bit_length() - 1
        rest = done >> index
        while index < len(calls) and calls[index] <= first_return:
            if not rest & 1:
                found.append(index)
                first_return = min(first_return, returns[index])
            index += 1
            rest >>= 1
        # What returned soonest is the likeliest; what never did comes last.
        if len(found) > 1:
            found = [index for index in found if calls[index] <= first_return]
            found.sort(key=returns.__getitem__, reverse=True)
        return found

    def _remember(self, path: list[tuple[int, int, Any, list[int]]], done: int) -> None:
        if len(path) > len(self._best) + 1 or not self._stuck:
            self._best = [index for index, *_ in path[1:]]
            self._stuck = self._candidates(done)


def check_by_index(operations: Iterable[Operation], model: Model) -> Verdict:
    """Replay each object's operations in the order of the log; exact, and linear but for those of one batch.

    Operations with equal indices were executed together, in an order that is not told. Those without an index are those
    whose outcome is not known: they may have been executed anywhere. An object with such a one is left to
    `check_history`, but for what the indices say about real time.
    """
    known = [one for one in operations if one.index is not None]
    problem = _order_problem(known)
    if problem is not None:
        return problem
    uncertain = {one.key for one in operations if one.index is None}
    places = {index: place for place, index in enumerate(sorted({_index_of(one) for one in known}))}
    for key, part in partition(known).items():
        if key in uncertain:
            continue
        # In the log's own time an operation takes no time at all, and those of one batch meet.
        moments = [places[_index_of(one)] for one in part]
        timed = [
            msgspec.structs.replace(one, called=moment, returned=moment)
            for one, moment in zip(part, moments, strict=True)
        ]
        verdict = check_history(timed, model)
        if not verdict.ok:
            return msgspec.structs.replace(verdict, key=key, reason=f"in the order of the log, {verdict.reason}")
    return GOOD


def _index_of(operation: Operation) -> tuple[int, ...]:
    return operation.index or ()


def _order_problem(operations: Sequence[Operation]) -> Verdict | None:
    """Compare the order of the log with real time, over all objects: it is one log."""
    latest: Operation | None = None
    latest_before: Operation | None = None
    for one in sorted(operations, key=_index_of):
        if latest is not None and _index_of(one) != _index_of(latest):
            if latest_before is None or latest.called > latest_before.called:
                latest_before = latest
            latest = None
        if latest_before is not None and one.returned is not None and one.returned < latest_before.called:
            reason = f"{one.index} returned before {latest_before.index} was called, and stands behind it in the log"
            return Verdict(False, one.key, reason, (latest_before,), (one,))
        if latest is None or one.called > latest.called:
            latest = one
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


REGISTER = Model(None, _register)
"""One value, nothing at first: ("get",) -> value, ("put", value) -> None, ("delete",) -> whether there was something,
("cas", expected, value) -> whether it was set."""


def _counter(state: Any, command: tuple[Any, ...]) -> tuple[Any, Any]:
    match command:
        case ("get",):
            return state, state
        case ("add", number):
            return state + number, state + number
    raise ValueError(f"a counter takes no {command!r}")


COUNTER = Model(0, _counter)
"""One number, 0 at first: ("get",) -> number, ("add", number) -> sum."""
