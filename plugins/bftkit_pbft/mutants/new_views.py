"""What new views begin with, broken on purpose (PBFT §4.4)."""

from hashlib import blake2b
from typing import Any

import msgspec

from bftkit.testing.mutants import Mutant, Scenarios, Schedules
from bftkit_pbft import new_view
from bftkit_pbft.messages import (
    NewView,
    Reproposal,
)
from bftkit_pbft.mutants.schedules import VIEWS


def _oldest_proof(original: Any) -> Any:
    def starting_point(votes: Any) -> Any:
        checkpoint, proposals = original(votes)
        lowest: dict[int, Any] = {}
        for vote in votes:
            for proof in vote.prepared:
                known = lowest.get(proof.position)
                if known is None or proof.view < known.view:
                    lowest[proof.position] = proof
        return checkpoint, tuple(
            Reproposal(one.position, lowest[one.position].refs if one.refs else ()) for one in proposals
        )

    return starting_point


def _own_checkpoint_only(original: Any) -> Any:
    def starting_point(votes: Any) -> Any:
        lowest = min((vote.checkpoint for vote in votes), key=lambda one: one.position)
        _, proposals = original([msgspec.structs.replace(vote, checkpoint=lowest) for vote in votes])
        return lowest, proposals

    return starting_point


def _no_null_proposals(original: Any) -> Any:
    def starting_point(votes: Any) -> Any:
        checkpoint, proposals = original(votes)
        kept = [one for one in proposals if one.refs]
        first = checkpoint.position + 1
        return checkpoint, tuple(Reproposal(first + place, one.refs) for place, one in enumerate(kept))

    return starting_point


def _nothing_survives(original: Any) -> Any:
    return lambda votes: (original(votes)[0], ())


def _trusting(original: Any) -> Any:
    def judge(state: Any, signer: int, out: list[Any]) -> None:
        candidate: NewView | None = state.candidates.get(signer)
        real = new_view.starting_point
        if candidate is not None:
            new_view.starting_point = lambda votes: (real(votes)[0], candidate.proposals)
        try:
            original(state, signer, out)
        finally:
            new_view.starting_point = real

    return judge


def _enters_again(original: Any) -> Any:
    def consider_new_view(state: Any, sender: int, signer: int, message: Any) -> Any:
        if state.active and state.view == message.view and message.view > 0:
            state.active = False
            state.leave_proposals()
        return original(state, sender, signer, message)

    return consider_new_view


def _another_o(to: int, message: Any) -> list[tuple[int, Any]]:
    """Begin new views with what was prepared, in another order."""
    if not isinstance(message, NewView):
        return [(to, message)]
    refs = [one.refs for one in reversed(message.proposals)]
    turned = tuple(Reproposal(one.position, mine) for one, mine in zip(message.proposals, refs, strict=True))
    return [(to, msgspec.structs.replace(message, proposals=turned))]


def _own_null(original: Any) -> Any:
    def accept(state: Any, slot: Any, refs: Any, digest: bytes, out: list[Any]) -> None:
        if not refs:
            digest = blake2b(digest + bytes([state.own]), digest_size=32).digest()
        original(state, slot, refs, digest, out)

    return accept


def _begins_anew(original: Any) -> Any:
    def begin_view(state: Any, entered: Any, votes: Any) -> None:
        original(state, entered, votes)
        state.next_position = state.low + 1

    return begin_view


MUTANTS = (
    Mutant(
        "pbft: the oldest proof is chosen",
        "A new view proposes what prepared in the lowest view in place of the highest (PBFT §4.4).",
        "bftkit_pbft.new_view:starting_point",
        _oldest_proof,
        (Scenarios(losses=("", "votes"), aimed=True, seed=3),),
    ),
    Mutant(
        "pbft: min-s of the laggard",
        "A new view begins at the lowest stable checkpoint in V in place of the highest (PBFT §4.4).",
        "bftkit_pbft.new_view:starting_point",
        _own_checkpoint_only,
        (Schedules(profile=msgspec.structs.replace(VIEWS, checkpoint_interval=2)), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: gaps are closed",
        "A new view moves proposals down instead of filling gaps with the null proposal (PBFT §4.4).",
        "bftkit_pbft.new_view:starting_point",
        _no_null_proposals,
        (Schedules(profile=VIEWS, count=400), Schedules(profile="all", count=400)),
    ),
    Mutant(
        "pbft: a new view begins with nothing",
        "What was prepared is not proposed again (PBFT §4.4).",
        "bftkit_pbft.new_view:starting_point",
        _nothing_survives,
        (Schedules(profile=VIEWS),),
    ),
    Mutant(
        "pbft: O is trusted",
        "A backup takes O from the primary in place of computing it (PBFT §4.4).",
        "bftkit_pbft.new_view:judge",
        _trusting,
        (Schedules(profile=VIEWS, liar="another O", speak=_another_o),),
    ),
    Mutant(
        "pbft: a NEW-VIEW counts again",
        "The same NEW-VIEW takes a replica out of the view that it began (sawtooth-pbft#98).",
        "bftkit_pbft.new_view:consider_new_view",
        _enters_again,
        (Schedules(profile=VIEWS), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: null proposals differ by member",
        "Each member fills a gap with something of its own (swarmDB#358).",
        "bftkit_pbft.normal_case:accept",
        _own_null,
        (Schedules(profile=VIEWS),),
    ),
    Mutant(
        "pbft: positions begin anew",
        "The primary of a new view proposes from the low water mark on, whatever O holds (indy-plenum#673).",
        "bftkit_pbft.new_view:begin_view",
        _begins_anew,
        (Schedules(profile=VIEWS),),
    ),
)
"""All of them."""
