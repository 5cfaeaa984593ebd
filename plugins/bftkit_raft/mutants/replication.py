"""The log and what is committed of it, broken on purpose (Raft §3.5, §3.6.2)."""

from typing import Any

from bftkit.core.batch import BatchRef
from bftkit.core.inputs import Received
from bftkit.core.outputs import Persist, Send
from bftkit.testing.mutants import Check, Mutant, Promise, Schedules, doing_nothing
from bftkit_raft import election, following, replication
from bftkit_raft.commitment import commit_through
from bftkit_raft.messages import AppendAccepted, AppendEntries, Entry
from bftkit_raft.mutants.elections import member
from bftkit_raft.mutants.schedules import CALM, CRASHES, TERMS


def _absent(seed: int) -> list[str]:
    """The lead is handed to a member that is gone for good."""
    return [
        f"cluster 3 seed={seed}",
        "submit a of 0",
        "await 20000",
        f"crash {seed % 3} for good",
        "run 3000",
        "submit b of 0",
        "await 20000",
        f"transfer {(seed + 1) % 3} to {seed % 3}",
        f"transfer {(seed + 2) % 3} to {seed % 3}",
        "submit c of 1",
        "await 20000",
    ]


def _interrupted(seed: int) -> list[str]:
    """A leader loses its quorum while it hands over the lead, and is elected again."""
    return [
        *_absent(seed)[:-2],
        f"cut {(seed + 1) % 3}",
        "run 3000",
        "heal",
        "run 3000",
        "submit c of 1",
        "await 20000",
    ]


def _copies_of_an_old_entry_are_not_enough() -> str | None:
    """Step (c) of the thesis' Fig. 3.7: an entry of term 2 is on a majority, and is not committed in term 4."""
    state = member(5)
    state.term = 4
    for term in (1, 2):
        state.append(Entry(term, ()))
    election.lead(state)
    for peer in (1, 2):
        replication.on_append_accepted(state, Received(5_000, peer, AppendAccepted(4, 2, 1)))
    return f"position {state.commit} is committed" if state.commit else None


def _what_an_earlier_leader_left_is_not_acknowledged() -> str | None:
    """Entries that wait for bodies are not taken for those that an earlier leader left in their place."""
    state = member(5)
    state.term = 1
    lost = BatchRef(bytes(range(32)), 1, 1, 1)
    for term in (1, 1, 1):
        state.append(Entry(term, ()))
    following.on_append_entries(
        state, Received(5_000, 1, AppendEntries(2, 0, 0, (Entry(2, (lost,)), Entry(2, ())), 0, 1))
    )
    out = following.on_append_entries(state, Received(5_001, 1, AppendEntries(2, 2, 2, (Entry(2, ()),), 0, 2)))
    said = [one.message.position for one in out if isinstance(one, Send) and isinstance(one.message, AppendAccepted)]
    return f"it acknowledges position {said[0]}" if any(said) else None


def _unrecorded(original: Any) -> Any:
    def append_complete(state: Any, out: list[Any]) -> None:
        mine: list[Any] = []
        original(state, mine)
        out.extend(one for one in mine if not isinstance(one, Persist))

    return append_complete


def _early(original: Any) -> Any:
    def acknowledge(state: Any, out: list[Any]) -> None:
        original(state, out)
        for place, one in enumerate(out):
            if isinstance(one, Send) and isinstance(one.message, AppendAccepted):
                out[place] = Send(one.to, one.message, early=True)

    return acknowledge


def _by_counting(original: Any) -> Any:
    def commit_by_counting(state: Any, out: list[Any]) -> None:
        matches = sorted((one.match for one in state.progress), reverse=True)
        commit_through(state, max(state.commit, matches[state.quorum.quorum - 1]), out)

    return commit_by_counting


def _one_is_enough(original: Any) -> Any:
    def commit_by_counting(state: Any, out: list[Any]) -> None:
        commit_through(state, max(one.match for one in state.progress), out)

    return commit_by_counting


def _beyond_what_matches(original: Any) -> Any:
    def acknowledge(state: Any, out: list[Any]) -> None:
        original(state, out)
        commit_through(state, min(state.leader_commit, state.log.last), out)

    return acknowledge


def _late_messages_truncate(original: Any) -> Any:
    def take_entries(state: Any, message: Any, out: list[Any]) -> bool:
        first = message.previous_position + 1
        if message.entries and state.log.base < first <= state.log.last:
            state.truncate(first)
            state.matched = min(state.matched, first - 1)
            state.deferred = []
        return bool(original(state, message, out))

    return take_entries


def _with_what_is_deferred(original: Any) -> Any:
    def acknowledge(state: Any, out: list[Any]) -> None:
        out.append(Send(state.leader, AppendAccepted(state.term, state.matched + len(state.deferred), 0)))
        original(state, out)

    return acknowledge


def _kept(original: Any) -> Any:
    def become_follower(state: Any, leader: Any) -> None:
        handover = state.handover
        original(state, leader)
        state.handover = handover
        if handover is not None:
            handover.since = 2**60

    return become_follower


MUTANTS = (
    Mutant(
        "raft: entries are acknowledged without a record",
        "A follower forgets in a crash what it has acknowledged (Raft §3.8).",
        "bftkit_raft.following:append_complete",
        _unrecorded,
        (Schedules("raft", 3, CRASHES), Promise("raft", "everybody-restarts", 3)),
    ),
    Mutant(
        "raft: acknowledgements overtake the disk",
        "A follower acknowledges entries that are not on its disk yet (Raft §10.2.1).",
        "bftkit_raft.following:acknowledge",
        _early,
        (Promise("raft", "early", 3),),
    ),
    Mutant(
        "raft: an old entry is committed by counting",
        "An entry of an earlier term counts as committed when a quorum holds it (Raft §3.6.2; logcabin#44).",
        "bftkit_raft.replication:commit_by_counting",
        _by_counting,
        (Schedules("raft", 3, TERMS), Check(_copies_of_an_old_entry_are_not_enough)),
    ),
    Mutant(
        "raft: one acknowledgement is enough",
        "An entry is committed when one member holds it (Raft §3.5).",
        "bftkit_raft.replication:commit_by_counting",
        _one_is_enough,
        (Promise("raft", "ordered", 3), Schedules("raft", 3, TERMS)),
    ),
    Mutant(
        "raft: a stale tail counts as the leader's",
        "While its leader's entries wait for bodies, a follower acknowledges what stands in their place (Raft §3.5).",
        "bftkit_raft.following:log_reaches",
        lambda original: lambda state, position, term: True,
        (Check(_what_an_earlier_leader_left_is_not_acknowledged),),
    ),
    Mutant(
        "raft: a late message truncates",
        "A message that was overtaken drops entries that came after it, decided ones too (Raft §3.5).",
        "bftkit_raft.following:take_entries",
        _late_messages_truncate,
        (Schedules("raft", 3, TERMS), Promise("raft", "ordered", 3)),
    ),
    Mutant(
        "raft: more is committed than matches",
        "A follower commits what the leader has committed, whatever its own log holds there (Raft Fig. 3.1).",
        "bftkit_raft.following:acknowledge",
        _beyond_what_matches,
        (Schedules("raft", 3, TERMS), Promise("raft", "ordered", 5, count=200)),
    ),
    Mutant(
        "raft: what lacks bodies is acknowledged",
        "A follower vouches for batches that it does not hold.",
        "bftkit_raft.following:acknowledge",
        _with_what_is_deferred,
        (Promise("raft", "ordered", 3), Schedules("raft", 3, TERMS)),
    ),
    Mutant(
        "raft: nothing is sent again",
        "What was lost on its way to a follower is never repeated.",
        "bftkit_raft.progress:Progress.tick",
        doing_nothing,
        (Promise("raft", "under-loss", 3), Schedules("raft", 3, "network")),
    ),
    Mutant(
        "raft: no batch is offered",
        "A batch that only a follower has waits for ever.",
        "bftkit_raft.timers:on_relay_timeout",
        lambda original: lambda state, event: [],
        (Promise("raft", "ordered", 3), Schedules("raft", 3, TERMS)),
    ),
    Mutant(
        "raft: a term begins without an entry",
        "What a new leader finds in its log is committed only when a client comes (Raft §6.4).",
        "bftkit_raft.election:record",
        lambda original: lambda state, first, entries, out: state.truncate(first),
        (Promise("raft", "ordered", 3), Schedules("raft", 3, CALM)),
    ),
    Mutant(
        "raft: batches beyond the window",
        "A leader appends without waiting for a stable checkpoint.",
        "bftkit_raft.state:State.window_end",
        lambda original: property(lambda state: 4 * original.fget(state) + 64),
        (Promise("raft", "ordered", 3), Schedules("raft", 3, CRASHES)),
    ),
    Mutant(
        "raft: a transfer never ends",
        "A leader waits for ever for a target that is gone (Raft §3.10).",
        "bftkit_raft.transfer:give_up_late",
        doing_nothing,
        (Promise("raft", "ordered", 3, story=_absent),),
    ),
    Mutant(
        "raft: a transfer outlives its term",
        "A leader that is elected again appends nothing, for a transfer of an earlier term (hashicorp/raft#696).",
        "bftkit_raft.roles:become_follower",
        _kept,
        (Promise("raft", "ordered", 3, story=_interrupted),),
    ),
)
"""All of them."""
