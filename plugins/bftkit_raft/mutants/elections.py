"""Elections, broken on purpose (Raft §3.4, §3.6.1, §4.2.3, §6.2, §9.6)."""

from typing import Any

import msgspec

from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Limits
from bftkit.core.inputs import Received
from bftkit.core.membership import Member, Membership
from bftkit.core.outputs import Persist, Send
from bftkit.core.quorum import FaultModel
from bftkit.testing.mutants import Check, Mutant, Promise, Schedules
from bftkit_raft import election
from bftkit_raft.config import RaftOptions
from bftkit_raft.messages import RequestVote, Vote
from bftkit_raft.mutants.schedules import CRASHES, TERMS
from bftkit_raft.state import State, initial_state


def member(members: int = 3, **options: Any) -> State:
    """Return the state of one member that has heard of nothing."""
    names = [Member(f"n{index}", bytes((index,)) * 32) for index in range(members)]
    membership = Membership(tuple(names), FaultModel.CRASH)
    return initial_state(EngineContext(0, membership, RaftOptions(**options), Limits()), 0)


def _one_sided(seed: int) -> list[str]:
    """The leader is heard, and hears nobody."""
    return [
        f"cluster 3 seed={seed}",
        "submit a of 0",
        "await 20000",
        *(f"lose AppendAccepted of {number} to leader" for number in range(3)),
        "submit b of 1",
        "await 20000",
    ]


def _deaf(seed: int) -> list[str]:
    """Two members, one of them the leader, never hear each other lead; the third one hears both."""
    return [
        f"cluster 3 seed={seed}",
        "submit a of 0",
        "await 20000",
        f"lose AppendEntries of leader to {seed % 3}",
        f"lose AppendEntries of {seed % 3} to leader",
        "run 20000",
        "heal",
        "submit b of 1",
        "await 20000",
    ]


def _away(seed: int) -> list[str]:
    """One member is cut off, for long, and comes back."""
    return [
        f"cluster 3 seed={seed}",
        "submit a of 0",
        "await 20000",
        f"cut {seed % 3}",
        "run 30000",
        "heal",
        "submit b of 0",
        "await 20000",
    ]


def _questions_change_nothing() -> str | None:
    """To grant a question beforehand changes nothing, no timer either."""
    state = member()
    state.now = 5_000
    before = (state.term, state.vote, state.quiet_since, state.heard_at, state.leader)
    out = election.on_request_vote(state, Received(5_000, 1, RequestVote(1, 0, 0, pre=True)))
    if out != [Send(1, Vote(0, 1, granted=True, pre=True))]:
        return f"the answer is {out}"
    changed = before != (state.term, state.vote, state.quiet_since, state.heard_at, state.leader)
    return "its variables change" if changed else None


def _refusals_carry_the_term() -> str | None:
    """A refusal carries the term of whoever refuses, so that the candidate takes it over."""
    state = member()
    state.term = 9
    (out,) = election.on_request_vote(state, Received(5_000, 1, RequestVote(2, 7, 1, pre=True)))
    return None if out == Send(1, Vote(9, 2, granted=False, pre=True)) else f"the answer is {out}"


def _again_in_the_term(original: Any) -> Any:
    def on_request_vote(state: Any, event: Any) -> Any:
        message = event.message
        if not message.pre and message.term == state.term and not state.leads and event.sender != state.own:
            state.vote = None
        return original(state, event)

    return on_request_vote


def _unrecorded(original: Any) -> Any:
    return lambda state, event: [one for one in original(state, event) if not isinstance(one, Persist)]


def _unrecorded_term(original: Any) -> Any:
    return lambda state, term, out: original(state, term, [])


def _touching_timers(original: Any) -> Any:
    def on_request_vote(state: Any, event: Any) -> Any:
        out = original(state, event)
        if event.message.pre and any(isinstance(one, Send) and one.message.granted for one in out):
            state.quiet_since = state.now
        return out

    return on_request_vote


def _refusals_count(original: Any) -> Any:
    def on_vote(state: Any, event: Any) -> Any:
        return original(state, Received(event.now, event.sender, msgspec.structs.replace(event.message, granted=True)))

    return on_vote


def _modest(original: Any) -> Any:
    """Answer with the term that was asked for, in place of the own one."""

    def on_request_vote(state: Any, event: Any) -> Any:
        out = original(state, event)
        for place, one in enumerate(out):
            if isinstance(one, Send) and isinstance(one.message, Vote) and not one.message.granted:
                term = min(one.message.term, max(1, one.message.asked - 1))
                out[place] = Send(one.to, msgspec.structs.replace(one.message, term=term))
        return out

    return on_request_vote


def _stand_at_once(original: Any) -> Any:
    return lambda state: election.stand(state, transfer=False)


MUTANTS = (
    Mutant(
        "raft: two votes in one term",
        "A member votes for whoever asks last in a term (Raft §3.4).",
        "bftkit_raft.election:on_request_vote",
        _again_in_the_term,
        (Schedules("raft", 3, TERMS), Schedules("raft", 5, TERMS), Promise("raft", "ordered", 5)),
    ),
    Mutant(
        "raft: the vote is not recorded",
        "A restarted member votes once more in the same term (Raft §3.8).",
        "bftkit_raft.election:on_request_vote",
        _unrecorded,
        (Schedules("raft", 3, CRASHES), Promise("raft", "everybody-restarts", 3, count=400)),
    ),
    Mutant(
        "raft: a later term is not recorded",
        "A restarted member is in an earlier term than it has answered in (Raft §3.8).",
        "bftkit_raft.roles:adopt_term",
        _unrecorded_term,
        (Schedules("raft", 3, CRASHES), Promise("raft", "everybody-restarts", 3, count=400)),
    ),
    Mutant(
        "raft: any log will do",
        "A vote is given without comparing logs (Raft §3.6.1).",
        "bftkit_raft.election:may_vote",
        lambda original: lambda state, message: True,
        (Schedules("raft", 3, TERMS), Promise("raft", "ordered", 5)),
    ),
    Mutant(
        "raft: refusals count as votes",
        "A candidate leads when enough have answered, whatever they say (Raft §3.4).",
        "bftkit_raft.election:on_vote",
        _refusals_count,
        (Schedules("raft", 3, TERMS), Promise("raft", "ordered", 5)),
    ),
    Mutant(
        "raft: a question touches timers",
        "Whoever grants a pre-vote puts off its own election (Raft §9.6; hashicorp/raft#609).",
        "bftkit_raft.election:on_request_vote",
        _touching_timers,
        (Check(_questions_change_nothing),),
    ),
    Mutant(
        "raft: nobody asks beforehand",
        "A member that was cut off raises its term again and again, and comes back to depose the leader (Raft §9.6).",
        "bftkit_raft.election:ask_beforehand",
        _stand_at_once,
        (Promise("raft", "ordered", 3, story=_away, most_view=3),),
    ),
    Mutant(
        "raft: refusals do not say the own term",
        "A longest log at a low term is refused for ever (databendlabs/openraft#1800).",
        "bftkit_raft.election:on_request_vote",
        _modest,
        (Check(_refusals_carry_the_term),),
    ),
    Mutant(
        "raft: candidates are heard while a leader is",
        "A member that does not hear the leader has it deposed (Raft §4.2.3).",
        "bftkit_raft.roles:hears_leader",
        lambda original: lambda state: False,
        (Promise("raft", "ordered", 3, story=_deaf, most_view=3),),
    ),
    Mutant(
        "raft: a leader that nobody hears stays",
        "A leader goes on without a quorum, and keeps others from electing one (Raft §6.2).",
        "bftkit_raft.leading:is_alone",
        lambda original: lambda state: False,
        (Promise("raft", "ordered", 3, story=_one_sided),),
    ),
    Mutant(
        "raft: a second round of elections never comes",
        "A candidate that was not elected waits for ever (Raft §3.4).",
        "bftkit_raft.election:on_election_timeout",
        lambda original: lambda state, event: [] if state.term else original(state, event),
        (Promise("raft", "without-leader", 3), Schedules("raft", 3, TERMS)),
    ),
)
"""All of them."""
