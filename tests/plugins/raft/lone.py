"""One engine and hand-made messages of the others: for tests that quote the thesis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.inputs import Available, Read, Received, Stable, Synced, TimerFired, Transfer
from bftkit.core.outputs import Broadcast, CancelTimer, Commit, Persist, ReadReady, Send, SetTimer
from bftkit_raft.check import proof_of_term
from bftkit_raft.engine import SPEC, build
from bftkit_raft.messages import (
    AppendAccepted,
    AppendEntries,
    Entry,
    RequestVote,
    Vote,
)
from bftkit_raft.state import Role
from tests.plugins.raft.parts import START, batch, checkpoint_at, context_of, entry, genesis_of


class Lone:
    """An engine that hears what the test says; what it says to itself comes back to it at once."""

    def __init__(self, own: int = 0, members: int = 3, *, records: Sequence[Any] = (), echo: bool = True,
                 checkpoint: CheckpointCertificate = START, now: int = 10_000, **options: Any) -> None:  # fmt: skip
        self.own = own
        self.members = members
        self.context = context_of(own, members, **options)
        self.engine = build(self.context, genesis_of(self.context), checkpoint, records)
        self.state = self.engine.state
        self.now = now
        self.echo = echo
        self.outputs: list[Any] = []
        self.records = list(records)
        self.timers: dict[str, tuple[int, int]] = {}
        self.take(self.engine.start(now))

    def take(self, outputs: Iterable[Any]) -> list[Any]:
        """Note outputs, and hand back what it says to itself."""
        outputs = list(outputs)
        self.outputs += outputs
        for output in outputs:
            match output:
                case Persist(record, replaces):
                    self.records = [record] if replaces else [*self.records, record]
                case SetTimer(timer, delay, jitter):
                    self.timers[timer] = (self.now + delay, jitter)
                case CancelTimer(timer):
                    self.timers.pop(timer, None)
                case Broadcast(message) if self.echo:
                    outputs = outputs + self.hear(self.own, message)
                case Send(to, message) if self.echo and to == self.own:
                    outputs = outputs + self.hear(self.own, message)
        return outputs

    def step(self, event: Any) -> list[Any]:
        return self.take(self.engine.step(event))

    def hear(self, sender: int, message: Any) -> list[Any]:
        problem = SPEC.check(self.context, sender, message)
        assert problem is None, f"{problem}: {message}"
        return self.step(Received(self.now, sender, message))

    def fire(self, timer: str, after: int = 0) -> list[Any]:
        self.now += after
        self.timers.pop(timer, None)
        return self.step(TimerFired(self.now, timer))

    def have(self, *refs: BatchRef, decided: bool = False) -> list[Any]:
        return self.step(Available(self.now, refs, decided))

    def read(self, token: int) -> list[Any]:
        return self.step(Read(self.now, token))

    def transfer(self, target: int) -> list[Any]:
        return self.step(Transfer(self.now, target))

    def stable(self, position: int) -> list[Any]:
        return self.step(Stable(self.now, checkpoint_at(position)))

    def synced(self, position: int, term: int = 0, refs: tuple[BatchRef, ...] = ()) -> list[Any]:
        return self.step(Synced(self.now, position, refs, proof_of_term(term) if term else None))

    def again(self, checkpoint: CheckpointCertificate = START, **options: Any) -> Lone:
        """The same member after a crash: what it had persisted is all that it knows."""
        return Lone(self.own, self.members, records=self.records, checkpoint=checkpoint, now=self.now, **options)

    # --- What others say ---

    def append(self, previous: int, previous_term: int, *entries: Entry, term: int = 1, commit: int = 0,
               leader: int = 1, round_: int = 1) -> list[Any]:  # fmt: skip
        """AppendEntries of a leader, whose bodies are all here."""
        refs = tuple(ref for one in entries for ref in one.refs if ref.digest not in self.state.held)
        if refs:
            self.have(*refs)
        return self.hear(leader, AppendEntries(term, previous, previous_term, entries, commit, round_))

    def accept(self, position: int, *, by: Iterable[int] = (1,), round_: int = 0) -> list[Any]:
        """Acknowledgements of the current term."""
        return [out for peer in by for out in self.hear(peer, AppendAccepted(self.state.term, position, round_))]

    def win(self, *, voters: Iterable[int] = (1,)) -> list[Any]:
        """Let it stand, and be elected by these."""
        voters = tuple(voters)
        out = self.fire("election", 2 * self.state.options.election_timeout_ms)
        for pre in (True, False):
            term = self.state.term + 1 if pre else self.state.term
            voter_term = term - 1 if pre else term
            for voter in voters:
                out = out + self.hear(voter, Vote(voter_term, term, granted=True, pre=pre))
        assert self.state.role is Role.LEADER
        return out

    def ask(self, sender: int, term: int, last: int, last_term: int, *, pre=False, transfer=False) -> Vote:
        """Ask it for its vote; return the answer."""
        out = self.hear(sender, RequestVote(term, last, last_term, pre, transfer))
        (vote,) = sent(out, Vote)
        return vote  # type: ignore[no-any-return]


def sent(outputs: Iterable[Any], kind: type) -> list[Any]:
    """The messages of a type among outputs."""
    return [one.message for one in outputs if isinstance(one, Broadcast | Send) and isinstance(one.message, kind)]


def sent_to(outputs: Iterable[Any], peer: int, kind: type) -> list[Any]:
    return [
        one.message for one in outputs if isinstance(one, Send) and one.to == peer and isinstance(one.message, kind)
    ]


def commits(outputs: Iterable[Any]) -> list[int]:
    return [output.position for output in outputs if isinstance(output, Commit)]


def reads(outputs: Iterable[Any]) -> list[tuple[int, int]]:
    return [(output.token, output.position) for output in outputs if isinstance(output, ReadReady)]


def index_of(outputs: Sequence[Any], kind: type, inner: type) -> int:
    """Where the first output of a type with such a content stands."""
    for index, output in enumerate(outputs):
        content = getattr(output, "message", getattr(output, "record", None))
        if isinstance(output, kind) and isinstance(content, inner):
            return index
    raise AssertionError(f"no {kind.__name__} of a {inner.__name__} in {outputs}")


def log_of(lone: Lone) -> list[int]:
    """The terms of its log behind the base."""
    return [one.term for one in lone.state.log.entries]


__all__ = ["Lone", "batch", "commits", "entry", "index_of", "log_of", "reads", "sent", "sent_to"]
