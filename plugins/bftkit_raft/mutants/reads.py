"""Reads and leases, broken on purpose (Raft §6.4)."""

from typing import Any

from bftkit.core.inputs import Received
from bftkit.core.outputs import Send
from bftkit.testing.mutants import Check, Mutant, Promise, doing_nothing
from bftkit_raft import engine, replication
from bftkit_raft.election import lead
from bftkit_raft.messages import AppendEntries, AppendRejected, RequestVote, Vote
from bftkit_raft.mutants.elections import member

_READS = ["read 0", "read 1", "read 2"]


def _reading(rounds: int, every: int) -> list[str]:
    lines: list[str] = []
    for number in range(rounds):
        lines += [f"submit r{number} of {number % 3}", f"run {every}", *_READS]
    return lines


def _deposed(seed: int, options: str = "") -> list[str]:
    """A leader hands over the lead, is cut off, and does not know that another one leads."""
    return [
        f"cluster 3 interval=8 seed={seed}{options}",
        "submit a of 0",
        "await 20000",
        "run 3000",
        *_READS,
        f"transfer leader to {seed % 3}",
        "cut leader",
        *_reading(30, 7),
    ]


def _deposed_with_leases(seed: int) -> list[str]:
    """A leader with a lease hands over the lead, and is cut off."""
    return _deposed(seed, " lease_reads=true")


def _slow_answers(seed: int) -> list[str]:
    """A leader with a lease hears its followers late, and is cut off."""
    return [
        f"cluster 3 interval=8 seed={seed} lease_reads=true",
        "submit a of 0",
        "await 20000",
        "delay 220 220",
        "run 3000",
        "lose AppendEntries of leader to 0 1 2",
        "run 220",
        "cut leader",
        "delay 1 1",
        *_reading(110, 10),
    ]


def _forgetful_followers(seed: int) -> list[str]:
    """The followers of a leader with a lease restart, and it is cut off."""
    leader = seed % 3
    others = [number for number in range(3) if number != leader]
    return [
        f"cluster 3 interval=8 seed={seed} lease_reads=true",
        "submit a of 0",
        "await 20000",
        f"transfer leader to {leader}",
        "run 3000",
        *(f"crash {number}" for number in others),
        f"cut {leader}",
        "restart all",
        *_reading(60, 8),
    ]


def _fresh_leader(seed: int) -> list[str]:
    """A leader crashes when it has committed, before the others know; the next one is asked at once."""
    lines = [f"cluster 3 interval=8 seed={seed}", "submit a of 0", "await 20000", "run 2000"]
    for number in range(3):
        lines += [f"crash leader after {5 + seed % 4}", f"submit b{number} of {number}"]
        for _ in range(100):
            lines += ["run 13", *_READS]
        lines += ["restart all", "run 2000"]
    return lines


def _late_answers(seed: int) -> list[str]:
    """Answers to a leader's earlier rounds come when another leads already."""
    return [
        f"cluster 3 interval=8 seed={seed}",
        "submit a of 0",
        "await 20000",
        "delay 60 60",
        "run 3000",
        "delay 1 1",
        f"transfer leader to {seed % 3}",
        "cut leader",
        *_reading(20, 7),
    ]


def _a_promise_outlives_its_term() -> str | None:
    """Whoever hears of a later term just after its leader votes for nobody until that leader's lease is over."""
    state = member(5, lease_reads=True, clock_drift_percent=0)
    wait = state.options.election_timeout_ms
    engine.on_received(state, Received(state.now, 1, AppendEntries(2, 0, 0, (), 0, 1)))
    engine.on_received(state, Received(state.now, 4, AppendRejected(3, 0, 0, 1, 0)))
    for later, expected in ((wait - 1, False), (wait, True)):
        state.now = later
        out = engine.on_received(state, Received(later, 3, RequestVote(4 + later, 0, 0)))
        votes = [one.message.granted for one in out if isinstance(one, Send) and isinstance(one.message, Vote)]
        if votes != [expected]:
            return f"{later} ms after its leader was heard, its vote is {votes}"
    return None


def _rounds_are_forgotten() -> str | None:
    """A leader with leases that nobody asks for anything does not remember every round that it ever began."""
    state = member(3, lease_reads=True)
    lead(state)
    rounds = 10_000
    for _ in range(rounds):
        state.now += state.options.heartbeat_ms
        replication.next_round(state)
    kept = len(state.round_sent_at)
    return f"it remembers {kept} of {rounds} rounds" if kept > 100 else None


def _with_every_round(original: Any) -> Any:
    def next_round(state: Any) -> None:
        state.round += 1
        state.round_sent_at.append((state.round, state.now))

    return next_round


def _always_this_round(original: Any) -> Any:
    return lambda state, sender, term, round_: original(state, sender, term, state.round if state.leads else round_)


def _from_now(original: Any) -> Any:
    def renew_lease(state: Any) -> None:
        before = state.lease_from
        original(state)
        if state.lease_from != before:
            state.lease_from = state.now

    return renew_lease


def _in_spite_of_transfers(original: Any) -> Any:
    def holds_lease(state: Any) -> Any:
        over, handover = state.lease_is_over, state.handover
        state.lease_is_over, state.handover = False, None
        held = original(state)
        state.lease_is_over, state.handover = over, handover
        return held

    return holds_lease


def _voting_at_once(original: Any) -> Any:
    def start_again(state: Any) -> Any:
        out = original(state)
        state.no_vote_until = 0
        return out

    return start_again


def _any_answer(original: Any) -> Any:
    def on_read_index_reply(state: Any, event: Any) -> Any:
        asked, message = state.reads.asked, event.message
        if asked is not None:
            asked.number, state.reads.life = message.number, message.life
        return original(state, event)

    return on_read_index_reply


MUTANTS = (
    Mutant(
        "raft: a read without confirmation",
        "A leader that was deposed, and does not know, lets a reader see an old state (Raft §6.4).",
        "bftkit_raft.reads:is_confirmed",
        lambda original: lambda state, round_: True,
        (Promise("raft", "reads", 3), Promise("raft", "reads", 3, story=_deposed)),
    ),
    Mutant(
        "raft: any answer confirms a read",
        "Answers to earlier rounds count as heard after the read began (Raft §6.4).",
        "bftkit_raft.replication:heard",
        _always_this_round,
        (Promise("raft", "reads", 3, story=_late_answers),),
    ),
    Mutant(
        "raft: a read before the term's first commit",
        "A new leader lets a reader see less than its predecessor has committed (Raft §6.4).",
        "bftkit_raft.reads:may_read",
        lambda original: lambda state: True,
        (Promise("raft", "reads", 3, story=_fresh_leader),),
    ),
    Mutant(
        "raft: any answer is for this reader",
        "A follower takes a late answer for the index of reads that came after the question.",
        "bftkit_raft.reads:on_read_index_reply",
        _any_answer,
        (Promise("raft", "reads", 3, count=200), Promise("raft", "reads", 4, count=200)),
    ),
    Mutant(
        "raft: a lease from the answer on",
        "A lease begins when the answer comes, later than its voter's promise (Raft §6.4.1).",
        "bftkit_raft.reads:renew_lease",
        _from_now,
        (Promise("raft", "reads", 3, story=_slow_answers, count=60),),
    ),
    Mutant(
        "raft: a lease in spite of a transfer",
        "A leader relies on its lease though it has told another to stand (Raft §6.4.1).",
        "bftkit_raft.reads:holds_lease",
        _in_spite_of_transfers,
        (Promise("raft", "reads", 3, story=_deposed_with_leases),),
    ),
    Mutant(
        "raft: a promise ends with the term",
        "A follower helps to replace a leader that holds a lease, because it has heard of a later term (Raft §6.4.1).",
        "bftkit_raft.roles:keep_promise",
        doing_nothing,
        (Check(_a_promise_outlives_its_term),),
    ),
    Mutant(
        "raft: every round is remembered",
        "A leader with leases keeps when it began each round, for as long as it leads.",
        "bftkit_raft.replication:next_round",
        _with_every_round,
        (Check(_rounds_are_forgotten),),
    ),
    Mutant(
        "raft: a restarted member votes at once",
        "A member forgets in a crash that its leader holds a lease (tikv#15035).",
        "bftkit_raft.restart:start_again",
        _voting_at_once,
        (Promise("raft", "reads", 3, story=_forgetful_followers),),
    ),
)
"""All of them."""
