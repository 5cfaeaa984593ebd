"""The three phases, broken on purpose (PBFT §4.2, §4.3)."""

from collections import deque
from typing import Any

import msgspec

from bftkit.core.log import CommitProof
from bftkit.core.outputs import Commit, Persist
from bftkit.testing.mutants import Mutant, Schedules, doing_nothing
from bftkit_pbft import normal_case
from bftkit_pbft.check import window_length
from bftkit_pbft.messages import (
    Prepare,
    proposal_digest,
)
from bftkit_pbft.mutants.schedules import CALM, VIEWS


def _without(kind: type) -> Any:
    """Make a handler whose outputs lack one kind."""

    def make(original: Any) -> Any:
        def handler(*arguments: Any) -> Any:
            out = arguments[-1]
            result = original(*arguments)
            out[:] = [output for output in out if not isinstance(output, kind)]
            return result

        return handler

    return make


def _decide_when_prepared(original: Any) -> Any:
    def decide(state: Any, slot: Any, out: list[Any]) -> None:
        certificate = slot.prepares.certificate(slot.digest, state.quorum.quorum) if slot.refs is not None else None
        if slot.decision is None and certificate is not None and slot.position > state.committed:
            slot.decision = Commit(slot.position, slot.refs, CommitProof(certificate))
            normal_case.deliver(state, out)
        original(state, slot, out)

    return decide


def _out_of_order(original: Any) -> Any:
    def deliver(state: Any, out: list[Any]) -> None:
        for position in sorted(state.slots):
            slot = state.slots[position]
            if position > state.committed and slot.decision is not None and not slot.missing:
                state.committed = position
                out.append(slot.decision)
                break
        original(state, out)

    return deliver


def _replaceable(original: Any) -> Any:
    def consider_proposal(state: Any, sender: int, signer: int, message: Any) -> Any:
        slot = state.slots.get(message.position)
        if slot is not None and slot.refs is not None and slot.decision is None and message.view == state.view:
            digest = proposal_digest(message.refs)
            if slot.digest != digest:
                slot.refs, slot.digest, slot.voted, slot.commit_voted = None, b"", False, False
        return original(state, sender, signer, message)

    return consider_proposal


def _without_bodies(original: Any) -> Any:
    def vote(state: Any, slot: Any, out: list[Any]) -> None:
        missing, slot.missing = slot.missing, {}
        original(state, slot, out)
        slot.missing = missing

    return vote


def _unbounded(original: Any) -> Any:
    def hold(state: Any, sender: int, message: Any, out: list[Any]) -> None:
        if state.early[sender].maxlen is not None:
            state.early[sender] = deque(state.early[sender])
        original(state, sender, message, out)

    return hold


def _old_votes(original: Any) -> Any:
    def admit(state: Any, sender: int, message: Any, out: list[Any]) -> Any:
        if state.active and message.view < state.view:
            message = msgspec.structs.replace(message, view=state.view)
        return original(state, sender, message, out)

    return admit


def _votes_of_later_views(to: int, message: Any) -> list[tuple[int, Any]]:
    """Vote in many later views as well."""
    if not isinstance(message, Prepare):
        return [(to, message)]
    return [(to, msgspec.structs.replace(message, view=message.view + step)) for step in range(12)]


def _twice_the_window(original: Any) -> Any:
    return property(lambda state: original.fget(state) + window_length(state.context))


def _any_mode(original: Any) -> Any:
    return lambda state, position: state.sealed is None and state.low < position <= state.vote_limit


MUTANTS = (
    Mutant(
        "pbft: a vote is not recorded",
        "PREPARE leaves before its record exists (PBFT §4.2; here: durable before it leaves).",
        "bftkit_pbft.normal_case:vote",
        _without(Persist),
        (Schedules(profile="crash"), Schedules(profile=VIEWS)),
    ),
    Mutant(
        "pbft: prepared is committed",
        "A position is decided by PREPAREs, without COMMITs (PBFT §4.2).",
        "bftkit_pbft.normal_case:decide",
        _decide_when_prepared,
        (Schedules(profile=CALM), Schedules(profile=VIEWS)),
    ),
    Mutant(
        "pbft: decisions are handed out as they come",
        "A position is executed before those below it (PBFT §4.2).",
        "bftkit_pbft.normal_case:deliver",
        _out_of_order,
        (Schedules(profile=VIEWS),),
    ),
    Mutant(
        "pbft: a second proposal replaces the first",
        "A backup accepts two PRE-PREPAREs for one view and position (PBFT §4.2).",
        "bftkit_pbft.normal_case:consider_proposal",
        _replaceable,
        (Schedules(profile=CALM, liar="contradicting itself"),),
    ),
    Mutant(
        "pbft: a vote without the body",
        "A replica votes for batches that it does not hold.",
        "bftkit_pbft.normal_case:vote",
        _without_bodies,
        (Schedules(profile=CALM, liar="withholding bodies"), Schedules(profile=VIEWS)),
    ),
    Mutant(
        "pbft: the future is kept without bound",
        "Messages of views that have not begun are kept, however many.",
        "bftkit_pbft.normal_case:hold",
        _unbounded,
        (Schedules(profile=CALM, liar="votes of later views", speak=_votes_of_later_views),),
    ),
    Mutant(
        "pbft: old votes count",
        "Votes of an earlier view are counted in this one (PBFT §4.2).",
        "bftkit_pbft.normal_case:admit",
        _old_votes,
        (Schedules(profile=VIEWS), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: the window stands still",
        "A stable checkpoint moves no water mark (PBFT §4.3).",
        "bftkit_pbft.checkpointing:advance_window",
        doing_nothing,
        (Schedules(profile=msgspec.structs.replace(CALM, checkpoint_interval=2)),),
    ),
    Mutant(
        "pbft: votes beyond the window",
        "A replica votes above the high water mark (PBFT §4.3).",
        "bftkit_pbft.state:State.vote_limit",
        _twice_the_window,
        (Schedules(profile=msgspec.structs.replace(VIEWS, checkpoint_interval=2)), Schedules()),
    ),
    Mutant(
        "pbft: votes in a view change",
        "Whoever has left a view votes for its proposals as if they were the next view's (PBFT §4.4).",
        "bftkit_pbft.normal_case:may_vote",
        _any_mode,
        (Schedules(profile=VIEWS), Schedules()),
    ),
    Mutant(
        "pbft: nothing is said again",
        "What was lost is neither repeated nor asked for.",
        "bftkit_pbft.retransmission:on_retransmit_timeout",
        lambda original: lambda state, event: [],
        (Schedules(profile=VIEWS), Schedules(profile="network")),
    ),
)
"""All of them."""
