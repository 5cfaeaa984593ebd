"""Saying things again: the network may lose, repeat and reorder what anybody sends."""

import msgspec

from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Received, TimerFired
from bftkit.core.outputs import Behind, Broadcast, EngineOutput, Offer, Send, Want
from bftkit_pbft.messages import (
    CommitVote,
    FetchNewView,
    FetchProposal,
    FetchViewChange,
    Prepare,
    PrePrepareCopy,
    ViewChangeCopy,
)
from bftkit_pbft.new_view import missing_votes
from bftkit_pbft.normal_case import repeat_votes, send_new_view
from bftkit_pbft.state import Slot, State
from bftkit_pbft.watching import oldest_watched

REPEATED_POSITIONS = 32
"""Positions that are repeated at once, the oldest ones."""

CANDIDATE_ROUNDS = 16
"""Every so many rounds, NEW-VIEWs that could not be judged are dropped: a liar's must not be asked about for ever."""


def on_retransmit_timeout(state: State, event: TimerFired) -> list[EngineOutput]:
    """Repeat what is not settled yet, and ask for what is missing."""
    out: list[EngineOutput] = []
    state.retransmissions += 1
    if state.committed < state.low and state.stable.certificate is not None:
        sources = tuple(signer for signer in state.stable.certificate.signers if signer != state.own)
        out.append(Behind(state.low, sources, state.stable))
    for primary, candidate in state.candidates.items():
        for name in missing_votes(state, primary):
            out.append(Broadcast(FetchViewChange(candidate.view, name.signer, name.digest)))
    if state.retransmissions % CANDIDATE_ROUNDS == 0:
        state.candidates.clear()
        state.named.clear()
    if not state.active:
        if state.own_view_change is not None:
            out.append(Broadcast(state.own_view_change))
            state.view_change_said_at = state.now
            state.view_change_rounds += 1
        offer_to_all(state, out)
        return out
    if state.new_view is not None and not state.new_view.signature:
        out.append(Broadcast(state.new_view))  # restarted between making and sending it
    repeated = 0
    for position in range(max(state.committed, state.low) + 1, state.top + 1):
        slot = state.slots.get(position)
        if slot is not None and slot.decision is not None and not slot.missing:
            continue
        repeat_position(state, position, slot, out)
        repeated += 1
        if repeated == REPEATED_POSITIONS:
            break
    return out


def repeat_position(state: State, position: int, slot: Slot | None, out: list[EngineOutput]) -> None:
    """Repeat the own votes for a position, or ask for what keeps this replica from voting."""
    if slot is None or slot.refs is None:
        others = state.others
        asked = (state.primary, others[state.retransmissions % len(others)]) if others else ()
        for peer in dict.fromkeys(asked):
            if peer != state.own:
                out.append(Send(peer, FetchProposal(state.view, position)))
        return
    if slot.missing:
        out.append(Want(tuple(slot.missing.values()), state.others))
    if slot.decision is not None or not slot.voted or position > state.vote_limit:
        return
    if state.primary == state.own and slot.pre_prepare is not None:
        out.append(Broadcast(msgspec.structs.replace(slot.pre_prepare, signature=b"")))
    out.append(Broadcast(Prepare(state.view, position, slot.digest)))
    if slot.commit_voted:
        out.append(Broadcast(CommitVote(state.view, position, slot.digest)))


def offer_to_all(state: State, out: list[EngineOutput]) -> None:
    """Tell everybody what waits here, so that the others watch it too and join the view change."""
    refs = oldest_watched(state)
    if refs:
        out.extend(Offer(refs, peer) for peer in state.others)


# --- Answers --------------------------------------------------------------------------------------------------------


def on_fetch_proposal(state: State, event: Received) -> list[EngineOutput]:
    """Hand on an accepted proposal, with the own votes for it."""
    out: list[EngineOutput] = []
    message: FetchProposal = event.message
    if not state.active or state.sealed is not None or message.view != state.view or event.sender == state.own:
        return out
    slot = state.slots.get(message.position)
    if slot is None or slot.refs is None:
        return out
    if slot.pre_prepare is None:
        send_new_view(state, event.sender, out)  # the NEW-VIEW is the proposal
    elif state.primary == state.own:
        if slot.voted:
            out.append(Send(event.sender, msgspec.structs.replace(slot.pre_prepare, signature=b"")))
    else:
        out.append(Send(event.sender, PrePrepareCopy(state.primary, slot.pre_prepare)))
    repeat_votes(state, slot, event.sender, out)
    return out


def on_fetch_new_view(state: State, event: Received) -> list[EngineOutput]:
    """Hand on the last NEW-VIEW to a member that heard of its view."""
    out: list[EngineOutput] = []
    message: FetchNewView = event.message
    if state.new_view is not None and state.new_view.view >= message.view and state.sealed is None:
        send_new_view(state, event.sender, out)
    return out


def on_fetch_view_change(state: State, event: Received) -> list[EngineOutput]:
    """Hand on a VIEW-CHANGE that a NEW-VIEW names."""
    message: FetchViewChange = event.message
    signer: ReplicaIndex = message.signer
    if event.sender == state.own:
        return []
    found = state.view_changes[signer].get(message.view)
    if found is None or found.statement().content != message.digest:
        found = state.new_view_votes.get(signer)
    if found is None or found.view != message.view or found.statement().content != message.digest:
        return []
    return [Send(event.sender, ViewChangeCopy(signer, found))]
