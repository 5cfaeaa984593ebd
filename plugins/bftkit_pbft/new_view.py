"""NEW-VIEW: what a new view begins with, made by its primary and computed again by everybody (PBFT §4.4)."""

from collections.abc import Sequence

from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Received
from bftkit.core.outputs import Accuse, Behind, Broadcast, EngineOutput, Persist, Reject, Send
from bftkit.core.votes import Evidence
from bftkit_pbft.checkpointing import advance_window, take_back
from bftkit_pbft.messages import (
    CommitVote,
    FetchViewChange,
    NewView,
    NewViewCopy,
    Prepare,
    PreparedProof,
    PrePrepare,
    Reproposal,
    ViewChange,
    ViewChangeName,
    ViewEntered,
    proposal_digest,
)
from bftkit_pbft.normal_case import Vote, accept, consider_proposal, deliver, on_commit, on_prepare, propose
from bftkit_pbft.state import State
from bftkit_pbft.watching import VIEW_CHANGE, WATCH, cancel_timer, watch_afresh


def starting_point(votes: Sequence[ViewChange]) -> tuple[CheckpointCertificate, tuple[Reproposal, ...]]:
    """Compute min-s with its proof, and O, from the VIEW-CHANGEs of a quorum (PBFT §4.4).

    min-s is the highest stable checkpoint in all of V, max-s the highest prepared position. Between them,
    each position gets the proposal that prepared in the highest view, or the null proposal.
    """
    checkpoint = max((vote.checkpoint for vote in votes), key=lambda one: one.position)
    best: dict[int, PreparedProof] = {}
    for vote in votes:
        for proof in vote.prepared:
            known = best.get(proof.position)
            if proof.position > checkpoint.position and (known is None or known.view < proof.view):
                best[proof.position] = proof
    last = max(best, default=checkpoint.position)
    return checkpoint, tuple(
        Reproposal(position, best[position].refs if position in best else ())
        for position in range(checkpoint.position + 1, last + 1)
    )


# --- The new primary ------------------------------------------------------------------------------------------------


def make_new_view(state: State, out: list[EngineOutput]) -> None:
    """Begin the view that this replica leads, once a quorum has asked for it (PBFT §4.4)."""
    if state.active or state.primary != state.own or state.sealed is not None:
        return
    votes = {signer: kept[state.view] for signer, kept in enumerate(state.view_changes) if state.view in kept}
    if state.own not in votes or len(votes) < state.quorum.quorum:
        return
    others = [signer for signer in votes if signer != state.own]
    chosen = {signer: votes[signer] for signer in sorted([state.own, *others[: state.quorum.quorum - 1]])}
    checkpoint, proposals = starting_point(tuple(chosen.values()))
    names = tuple(ViewChangeName(signer, vote.statement().content) for signer, vote in chosen.items())
    enter_view(state, NewView(state.view, names, proposals), chosen, checkpoint, out)


# --- Everybody ------------------------------------------------------------------------------------------------------


def on_new_view(state: State, event: Received) -> list[EngineOutput]:
    """Take a NEW-VIEW from the primary that has made it."""
    return consider_new_view(state, event.sender, event.sender, event.message)


def on_new_view_copy(state: State, event: Received) -> list[EngineOutput]:
    """Take a NEW-VIEW that another member has handed on."""
    copy: NewViewCopy = event.message
    return consider_new_view(state, event.sender, copy.signer, copy.new_view)


def consider_new_view(
    state: State, sender: ReplicaIndex, signer: ReplicaIndex, new_view: NewView
) -> list[EngineOutput]:
    """Judge a NEW-VIEW, or fetch what it takes to; the same one may come any number of times."""
    out: list[EngineOutput] = []
    if state.sealed is not None or new_view.view < state.view:
        return out
    known = state.new_view if new_view.view == state.view and state.active else state.candidates.get(signer)
    if known is not None and known.view == new_view.view:
        if known.statement() != new_view.statement():
            out.append(
                Accuse(Evidence(signer, known.statement(), known.signature, new_view.statement(), new_view.signature))
            )
        elif known is state.new_view and not known.signature:
            state.new_view = new_view  # the own one came back, signed
        return out
    if known is None or known.view < new_view.view:
        state.candidates[signer] = new_view
        state.named.pop(signer, None)
        state.spoken[signer] = max(state.spoken[signer], new_view.view)
        judge(state, signer, out)
        if signer in state.candidates and sender != state.own:
            out.extend(
                Send(sender, FetchViewChange(new_view.view, name.signer, name.digest))
                for name in missing_votes(state, signer)
            )
    return out


def missing_votes(state: State, primary: ReplicaIndex) -> list[ViewChangeName]:
    """List the VIEW-CHANGEs that a primary's NEW-VIEW names and that are not here."""
    return [name for name in state.candidates[primary].votes if find_vote(state, primary, name) is None]


def find_vote(state: State, primary: ReplicaIndex, name: ViewChangeName) -> ViewChange | None:
    """Return the VIEW-CHANGE that a primary's NEW-VIEW names, if it is here."""
    kept = state.view_changes[name.signer].get(state.candidates[primary].view)
    named = state.named.get(primary, {}).get(name.signer)
    return next((vote for vote in (kept, named) if vote is not None and vote.statement().content == name.digest), None)


def keep_named(state: State, signer: ReplicaIndex, vote: ViewChange) -> None:
    """Keep a VIEW-CHANGE that a NEW-VIEW names, though its signer has told this replica something else.

    Whoever lies in a VIEW-CHANGE must not keep anybody out of the view that rests on the other version of it.
    """
    name = ViewChangeName(signer, vote.statement().content)
    for primary, new_view in state.candidates.items():
        if new_view.view == vote.view and name in missing_votes(state, primary):
            state.named.setdefault(primary, {})[signer] = vote


def forget_candidate(state: State, primary: ReplicaIndex) -> None:
    """Let go of a primary's NEW-VIEW that is settled, with what was kept for it."""
    del state.candidates[primary]
    state.named.pop(primary, None)


def judge_all(state: State, out: list[EngineOutput]) -> None:
    """Look again at each NEW-VIEW that something was missing for."""
    for signer in list(state.candidates):
        judge(state, signer, out)


def judge(state: State, signer: ReplicaIndex, out: list[EngineOutput]) -> None:
    """Enter a view whose NEW-VIEW follows from its VIEW-CHANGEs; never trust the primary's O."""
    new_view = state.candidates.get(signer)
    if new_view is None:
        return
    if new_view.view < state.view or (new_view.view == state.view and state.active):
        forget_candidate(state, signer)
        return
    votes: dict[ReplicaIndex, ViewChange] = {}
    for name in new_view.votes:
        vote = find_vote(state, signer, name)
        if vote is None:
            return
        votes[name.signer] = vote
    forget_candidate(state, signer)
    checkpoint, proposals = starting_point(tuple(votes.values()))
    if proposals != new_view.proposals:
        out.append(Reject(signer, f"the new view {new_view.view} does not follow from its view changes"))
        return
    enter_view(state, new_view, votes, checkpoint, out)


def enter_view(
    state: State,
    new_view: NewView,
    votes: dict[ReplicaIndex, ViewChange],
    checkpoint: CheckpointCertificate,
    out: list[EngineOutput],
) -> None:
    """Begin a view: accept each proposal in O as if the primary had just pre-prepared it (PBFT §4.4)."""
    out.append(Persist(ViewEntered(new_view, checkpoint)))
    cancel_timer(state, out, VIEW_CHANGE)
    cancel_timer(state, out, WATCH)
    begin_view(state, new_view, votes)
    if state.primary == state.own:
        out.append(Broadcast(new_view))
    freed = state.leave_proposals()
    if checkpoint.position > state.low:
        advance_window(state, checkpoint)
    if checkpoint.position > state.committed and checkpoint.certificate is not None:
        # PBFT §4.4: whoever lacks the checkpoint fetches the state, the new primary included.
        sources = tuple(signer for signer in checkpoint.certificate.signers if signer != state.own)
        state.behind_reported = max(state.behind_reported, checkpoint.position)
        out.append(Behind(checkpoint.position, sources, checkpoint))
    for proposal in new_view.proposals:
        if proposal.position > state.low:
            slot = state.slot(proposal.position)
            accept(state, slot, proposal.refs, proposal_digest(proposal.refs), out)
    take_back(state, freed)
    state.progress_at = state.now
    watch_afresh(state)
    deliver(state, out)
    propose(state, out)
    replay_early(state, out)


def begin_view(state: State, new_view: NewView, votes: dict[ReplicaIndex, ViewChange]) -> None:
    """Set the variables of a view that begins."""
    state.view = new_view.view
    state.active = True
    state.committed_in_view = False
    state.entered_at = state.now
    state.own_view_change = None
    state.new_view = new_view
    state.new_view_votes = votes
    for kept in state.view_changes:
        for view in [view for view in kept if view <= state.view]:
            del kept[view]
    last = new_view.proposals[-1].position if new_view.proposals else 0
    state.next_position = max(last, state.low, state.committed) + 1


def replay_early(state: State, out: list[EngineOutput]) -> None:
    """Take the messages of this view that came before its NEW-VIEW."""
    for sender, messages in enumerate(state.early):
        due = [message for _, message in messages if message.view == state.view]
        later = [(sender, message) for _, message in messages if message.view > state.view]
        messages.clear()
        messages.extend(later)
        for message in due:
            out.extend(take(state, sender, message))


def take(state: State, sender: ReplicaIndex, message: Vote) -> list[EngineOutput]:
    """Handle one message of the normal case that was kept."""
    match message:
        case PrePrepare():
            return consider_proposal(state, sender, state.primary, message)
        case Prepare():
            return on_prepare(state, Received(state.now, sender, message))
        case CommitVote():
            return on_commit(state, Received(state.now, sender, message))
