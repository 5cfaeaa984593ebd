"""Every random decision of a simulated run, by concern: drawn, written down, or read from what was written.

A run asks a `Stream` whenever chance has a say. Each answer is a whole number, and 0 stands for "nothing
special": no loss, the shortest delay, the first of several. So the few answers that are not 0 are the whole
story of a run; whoever plays them back gets the same run, and whoever leaves some out gets a simpler one.
That is what shrinking does.

The name of a decision is its stream, what it was about, where, and how often the same was asked before:
leaving one decision out does not rename the decisions about anything else.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

Name = tuple[str, str, int, int]
"""Stream, what, where (the number of a link or a member), and how many times the same was asked before."""

Decisions = dict[Name, int]
"""The answers that were not 0, in the order in which they were given."""

T = TypeVar("T")

STREAMS = ("network", "links", "disk", "crash", "clock", "client", "byzantine", "order")
"""Concerns with a stream of their own, so that a change of one leaves the others as they were.

"links" lie between clients and members, "crash" holds the planned faults, "clock" also the jitter of timers,
"order" what an adversary makes of the order of events.
"""


class Stream:
    """Answers of one concern, drawn from the seed. The other kinds of stream answer alike, from elsewhere."""

    __slots__ = ("name", "random")

    def __init__(self, name: str, random: Random) -> None:
        self.name = name
        self.random = random
        """Where the answers come from."""

    def chance(self, what: str, where: int, rate: float) -> bool:
        """Say whether something of this rate happens; False is the default."""
        return rate > 0.0 and self.random.random() < rate

    def below(self, what: str, where: int, bound: int) -> int:
        """Return a whole number from 0 to below a bound; 0 is the default."""
        return int(self.random.random() * bound)

    def among(self, what: str, where: int, options: Sequence[T]) -> T:
        """Return one of several; the first is the default."""
        return options[self.below(what, where, len(options))]


class RecordingStream(Stream):
    """A stream that writes down what it answers; it draws the same as one that does not."""

    __slots__ = ("_asked", "_decisions")

    def __init__(self, name: str, random: Random, decisions: Decisions) -> None:
        super().__init__(name, random)
        self._decisions = decisions
        self._asked: dict[tuple[str, int], int] = {}

    def _note(self, what: str, where: int, answer: int) -> None:
        count = self._asked.get((what, where), 0)
        self._asked[what, where] = count + 1
        if answer:
            self._decisions[self.name, what, where, count] = int(answer)

    def chance(self, what: str, where: int, rate: float) -> bool:
        """Say whether something of this rate happens, and write it down."""
        answer = super().chance(what, where, rate)
        self._note(what, where, answer)
        return answer

    def below(self, what: str, where: int, bound: int) -> int:
        """Return a whole number from 0 to below a bound, and write it down."""
        answer = super().below(what, where, bound)
        self._note(what, where, answer)
        return answer


class ScriptedStream(Stream):
    """A stream that answers what was decided beforehand, and 0 to everything else."""

    __slots__ = ("_asked", "_decisions")

    def __init__(self, name: str, random: Random, decisions: Mapping[Name, int]) -> None:
        super().__init__(name, random)
        self._decisions = decisions
        self._asked: dict[tuple[str, int], int] = {}

    def _answer(self, what: str, where: int) -> int:
        count = self._asked.get((what, where), 0)
        self._asked[what, where] = count + 1
        return self._decisions.get((self.name, what, where, count), 0)

    def chance(self, what: str, where: int, rate: float) -> bool:
        """Say whether this was decided to happen."""
        return bool(self._answer(what, where))

    def below(self, what: str, where: int, bound: int) -> int:
        """Return what was decided, or the largest number that is possible if that is less."""
        return min(self._answer(what, where), bound - 1)


class Choices:
    """All streams of one run."""

    __slots__ = ("byzantine", "client", "clock", "crash", "disk", "links", "network", "order", "recorded", "seed")

    def __init__(self, seed: int, *, record: bool = False, decisions: Mapping[Name, int] | None = None) -> None:
        self.seed = seed
        self.recorded: Decisions | None = {} if record else None
        """What was answered up to now, when it is written down."""
        self.network = self._stream("network", decisions)
        self.links = self._stream("links", decisions)
        self.disk = self._stream("disk", decisions)
        self.crash = self._stream("crash", decisions)
        self.clock = self._stream("clock", decisions)
        self.client = self._stream("client", decisions)
        self.byzantine = self._stream("byzantine", decisions)
        self.order = self._stream("order", decisions)

    def _stream(self, name: str, decisions: Mapping[Name, int] | None) -> Stream:
        random = self.random(name)
        if decisions is not None:
            return ScriptedStream(name, random, decisions)
        if self.recorded is not None:
            return RecordingStream(name, random, self.recorded)
        return Stream(name, random)

    def random(self, *concern: object) -> Random:
        """Return a source of its own for what is not worth writing down in detail: what a crash tears, say."""
        return Random("/".join(map(str, (self.seed, *concern))))
