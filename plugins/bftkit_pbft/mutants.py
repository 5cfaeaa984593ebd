"""PBFT, broken on purpose in the ways in which others have got it wrong; see `bftkit.testing.mutants`."""

from collections import deque
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.log import CommitProof
from bftkit.core.outputs import Broadcast, Commit, Persist, SetTimer
from bftkit.core.statement import Statement
from bftkit.testing.mutants import Check, Mutant, Schedules
from bftkit.testing.profile import Profile
from bftkit_pbft import new_view, normal_case, view_change
from bftkit_pbft.messages import (
    PREPARE_KIND,
    NewView,
    Prepare,
    PreparedProof,
    Reproposal,
    ViewChange,
    proposal_digest,
)

_VIEWS = Profile(
    duration_ms=3_000,
    loss=0.1,
    partitions=3,
    cuts=3,
    crashes=3,
    link_us=(200, 20_000),
    clients=4,
    envelopes=16,
    think_ms=20,
    checkpoint_interval=16,
)
"""Many view changes while much is under way."""

_CALM = Profile(clients=4, envelopes=16, think_ms=5)


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


def _forgetful(original: Any) -> Any:
    return lambda state, record: None


def _leave_without_p(original: Any) -> Any:
    def leave_view(state: Any, view: int, out: list[Any]) -> None:
        original(state, view, out)
        for place, output in enumerate(out):
            message = getattr(output, "message", None)
            if isinstance(output, Broadcast) and isinstance(message, ViewChange):
                bare = msgspec.structs.replace(message, prepared=())
                state.own_view_change = bare
                out[place] = Broadcast(bare)

    return leave_view


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


def _back_by_catching_up(original: Any) -> Any:
    def on_synced(state: Any, event: Any) -> Any:
        out = original(state, event)
        state.active = True
        return out

    return on_synced


def _never_forgets(original: Any) -> Any:
    return lambda state, checkpoint: None


def _joins_nobody(original: Any) -> Any:
    return lambda state, out: None


def _joins_one(original: Any) -> Any:
    def join(state: Any, out: list[Any]) -> None:
        wanted = [view for view in view_change.highest_views(state) if view > state.view]
        if wanted:
            view_change.leave_view(state, max(wanted), out)

    return join


def _enters_again(original: Any) -> Any:
    def consider_new_view(state: Any, sender: int, signer: int, message: Any) -> Any:
        if state.active and state.view == message.view and message.view > 0:
            state.active = False
            state.leave_proposals()
        return original(state, sender, signer, message)

    return consider_new_view


def _unarmed_start(original: Any) -> Any:
    def start(self: Any, now: int) -> Any:
        out = [output for output in original(self, now) if not isinstance(output, SetTimer)]
        self.state.armed = dict.fromkeys(("watch", "relay", "retransmit", "view-change"), now)
        return out

    return start


def _no_claims(original: Any) -> Any:
    return lambda sender, message: iter(())


def _any_proof(original: Any) -> Any:
    return lambda context, view, proof: None


def _any_decision(original: Any) -> Any:
    return lambda context, entry: None


def _old_votes(original: Any) -> Any:
    def admit(state: Any, sender: int, message: Any, out: list[Any]) -> Any:
        if state.active and message.view < state.view:
            message = msgspec.structs.replace(message, view=state.view)
        return original(state, sender, message, out)

    return admit


# --- Liars and looks ------------------------------------------------------------------------------------------------


def _another_o(to: int, message: Any) -> list[tuple[int, Any]]:
    """Begin new views with what was prepared, in another order."""
    if not isinstance(message, NewView):
        return [(to, message)]
    refs = [one.refs for one in reversed(message.proposals)]
    turned = tuple(Reproposal(one.position, mine) for one, mine in zip(message.proposals, refs, strict=True))
    return [(to, msgspec.structs.replace(message, proposals=turned))]


def _votes_of_later_views(to: int, message: Any) -> list[tuple[int, Any]]:
    """Vote in many later views as well."""
    if not isinstance(message, Prepare):
        return [(to, message)]
    return [(to, msgspec.structs.replace(message, view=message.view + step)) for step in range(12)]


def _ask_for_the_next_view(to: int, message: Any) -> list[tuple[int, Any]]:
    """Ask for the next view with each vote."""
    if not isinstance(message, Prepare):
        return [(to, message)]
    return [(to, message), (to, ViewChange(message.view + 1, CheckpointCertificate(EMPTY_CHECKPOINT, None), ()))]


def _look_at_two_proofs() -> str | None:
    """Of two prepared certificates for a position, the one of the higher view is proposed."""

    def proof(view: int, name: bytes) -> PreparedProof:
        refs = (BatchRef(name * 32, 0, 1, 10),)
        statement = Statement(PREPARE_KIND, view, 1, proposal_digest(refs))
        return PreparedProof(QuorumCertificate.of(statement, dict.fromkeys(range(3), bytes(64)), 4), refs)

    start = CheckpointCertificate(EMPTY_CHECKPOINT, None)
    older, newer = proof(1, b"a"), proof(3, b"b")
    for votes in ((older, newer), (newer, older)):
        _, proposals = new_view.starting_point([ViewChange(5, start, (vote,)) for vote in votes])
        if proposals[0].refs != newer.refs:
            return "what prepared in view 1 is proposed, not what prepared in view 3"
    return None


MUTANTS = (
    Mutant(
        "pbft: a vote is not recorded",
        "PREPARE leaves before its record exists (PBFT §4.2; here: durable before it leaves).",
        "bftkit_pbft.normal_case:vote",
        _without(Persist),
        (Schedules(profile="crash"), Schedules(profile=_VIEWS)),
    ),
    Mutant(
        "pbft: an accepted proposal is forgotten",
        "A restarted replica does not know what it has voted for.",
        "bftkit_pbft.restart:_replay_accepted",
        _forgetful,
        (Schedules(profile="crash"), Schedules(profile=_VIEWS)),
    ),
    Mutant(
        "pbft: a prepared certificate is forgotten",
        "P of a VIEW-CHANGE lacks what prepared before a crash (PBFT §4.4).",
        "bftkit_pbft.restart:_replay_proof",
        lambda original: lambda state, proof: None,
        (Schedules(profile=msgspec.structs.replace(_VIEWS, crashes=6, power_cuts=2)), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: the view is forgotten",
        "A replica that left a view votes in it again after a crash (PBFT §4.4).",
        "bftkit_pbft.restart:_replay_view_left",
        _forgetful,
        (Schedules(profile=msgspec.structs.replace(_VIEWS, crashes=8)), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: VIEW-CHANGE without P",
        "A VIEW-CHANGE says nothing of what prepared (PBFT §4.4).",
        "bftkit_pbft.view_change:leave_view",
        _leave_without_p,
        (Schedules(profile=_VIEWS),),
    ),
    Mutant(
        "pbft: the oldest proof is chosen",
        "A new view proposes what prepared in the lowest view in place of the highest (PBFT §4.4).",
        "bftkit_pbft.new_view:starting_point",
        _oldest_proof,
        (Check(_look_at_two_proofs),),
    ),
    Mutant(
        "pbft: min-s of the laggard",
        "A new view begins at the lowest stable checkpoint in V in place of the highest (PBFT §4.4).",
        "bftkit_pbft.new_view:starting_point",
        _own_checkpoint_only,
        (Schedules(profile=msgspec.structs.replace(_VIEWS, checkpoint_interval=2)), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: gaps are closed",
        "A new view moves proposals down instead of filling gaps with the null proposal (PBFT §4.4).",
        "bftkit_pbft.new_view:starting_point",
        _no_null_proposals,
        (Schedules(profile=_VIEWS, count=400), Schedules(profile="all", count=400)),
    ),
    Mutant(
        "pbft: a new view begins with nothing",
        "What was prepared is not proposed again (PBFT §4.4).",
        "bftkit_pbft.new_view:starting_point",
        _nothing_survives,
        (Schedules(profile=_VIEWS),),
    ),
    Mutant(
        "pbft: O is trusted",
        "A backup takes O from the primary in place of computing it (PBFT §4.4).",
        "bftkit_pbft.new_view:judge",
        _trusting,
        (Schedules(profile=_VIEWS, liar="another O", speak=_another_o),),
    ),
    Mutant(
        "pbft: prepared is committed",
        "A position is decided by PREPAREs, without COMMITs (PBFT §4.2).",
        "bftkit_pbft.normal_case:decide",
        _decide_when_prepared,
        (Schedules(profile=_CALM), Schedules(profile=_VIEWS)),
    ),
    Mutant(
        "pbft: decisions are handed out as they come",
        "A position is executed before those below it (PBFT §4.2).",
        "bftkit_pbft.normal_case:deliver",
        _out_of_order,
        (Schedules(profile=_VIEWS),),
    ),
    Mutant(
        "pbft: a second proposal replaces the first",
        "A backup accepts two PRE-PREPAREs for one view and position (PBFT §4.2).",
        "bftkit_pbft.normal_case:consider_proposal",
        _replaceable,
        (Schedules(profile=_CALM, liar="contradicting itself"),),
    ),
    Mutant(
        "pbft: a vote without the body",
        "A replica votes for batches that it does not hold.",
        "bftkit_pbft.normal_case:vote",
        _without_bodies,
        (Schedules(profile=_CALM, liar="withholding bodies"), Schedules(profile=_VIEWS)),
    ),
    Mutant(
        "pbft: the future is kept without bound",
        "Messages of views that have not begun are kept, however many.",
        "bftkit_pbft.normal_case:hold",
        _unbounded,
        (Schedules(profile=_CALM, liar="votes of later views", speak=_votes_of_later_views),),
    ),
    Mutant(
        "pbft: catching up ends a view change",
        "A replica that has left a view votes again because it has caught up (PBFT §4.4).",
        "bftkit_pbft.checkpointing:on_synced",
        _back_by_catching_up,
        (Schedules(profile=_VIEWS), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: the window stands still",
        "A stable checkpoint moves no water mark (PBFT §4.3).",
        "bftkit_pbft.checkpointing:advance_window",
        _never_forgets,
        (Schedules(profile=msgspec.structs.replace(_CALM, checkpoint_interval=2)),),
    ),
    Mutant(
        "pbft: suspicion moves nobody",
        "A replica goes on in a view that f + 1 members suspect (PBFT §4.4, §4.5.2).",
        "bftkit_pbft.view_change:follow_suspicion",
        _joins_nobody,
        (Schedules(profile=_CALM, liar="silent"), Schedules(profile=_VIEWS)),
    ),
    Mutant(
        "pbft: old votes count",
        "Votes of an earlier view are counted in this one (PBFT §4.2).",
        "bftkit_pbft.normal_case:admit",
        _old_votes,
        (Schedules(profile=_VIEWS), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: one member is followed",
        "A replica joins a single member in a higher view, who may be lying (PBFT §4.5.2).",
        "bftkit_pbft.view_change:join",
        _joins_one,
        (Schedules(profile=_CALM, liar="asking for the next view", speak=_ask_for_the_next_view),),
    ),
    Mutant(
        "pbft: a NEW-VIEW counts again",
        "The same NEW-VIEW takes a replica out of the view that it began (sawtooth-pbft#98).",
        "bftkit_pbft.new_view:consider_new_view",
        _enters_again,
        (Schedules(profile=_VIEWS), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: no timer after a restart",
        "A restarted replica waits for others without ever giving up.",
        "bftkit_pbft.engine:PbftEngine.start",
        _unarmed_start,
        (Schedules(profile="crash"), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: signatures are not looked at",
        "A message's signatures are not verified (PBFT §3).",
        "bftkit_pbft.check:claims",
        _no_claims,
        (Schedules(profile=_CALM, liar="wrong signatures"), Schedules(profile=_VIEWS, liar="wrong signatures")),
    ),
    Mutant(
        "pbft: any proof is good",
        "A prepared certificate is taken without a look at its votes (PBFT §4.4).",
        "bftkit_pbft.check:_prepared_problem",
        _any_proof,
        (Schedules(profile=_VIEWS, liar="corrupt view changes", count=400),),
    ),
    Mutant(
        "pbft: any decision is good",
        "A decided position is taken from a peer without a look at its proof.",
        "bftkit_pbft.check:commit_problem",
        _any_decision,
        (Schedules(profile=_VIEWS, liar="corrupt answers", count=400),),
    ),
)
"""All of them."""
