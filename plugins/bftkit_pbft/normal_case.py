"""The three phases: PRE-PREPARE, PREPARE, COMMIT (PBFT §4.2)."""

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Available, Received
from bftkit.core.log import CommitProof
from bftkit.core.outputs import (
    Accuse,
    Behind,
    Broadcast,
    Commit,
    EngineOutput,
    Persist,
    Reject,
    Send,
    Want,
)
from bftkit.core.votes import Evidence
from bftkit_pbft.messages import (
    Accepted,
    CommitVote,
    FetchNewView,
    NewViewCopy,
    Prepare,
    Prepared,
    PreparedProof,
    PrePrepare,
    PrePrepareCopy,
    proposal_digest,
)
from bftkit_pbft.state import Slot, State
from bftkit_pbft.watching import note_committed, note_proposed, watch

Vote = PrePrepare | Prepare | CommitVote


# --- Bodies ---------------------------------------------------------------------------------------------------------


def on_available(state: State, event: Available) -> list[EngineOutput]:
    """Take note of bodies: a deferred vote may go, a primary may propose, a backup watches."""
    out: list[EngineOutput] = []
    for ref in event.refs:
        complete = state.body_arrived(ref)
        position = state.ordered.get(ref.digest)
        if event.decided and position is None:
            del state.held[ref.digest]  # its decision was learnt by other means
        elif position is None:
            state.pending.add(ref)
            watch(state, ref)
        elif position > state.committed:
            watch(state, ref)
        for slot in complete:
            vote(state, slot, out)
    deliver(state, out)
    propose(state, out)
    return out


# --- PRE-PREPARE ----------------------------------------------------------------------------------------------------


def propose(state: State, out: list[EngineOutput]) -> None:
    """Assign the next positions to waiting batches, as far as the pipeline and the window allow (PBFT §4.2)."""
    while (
        state.leads
        and len(state.pending)
        and state.next_position <= max(state.committed, state.low) + state.options.in_flight
        and state.next_position <= state.vote_limit
    ):
        refs = tuple(state.pending.take(state.options.batches_per_proposal))
        slot = state.slot(state.next_position)
        slot.pre_prepare = PrePrepare(state.view, slot.position, refs)
        accept(state, slot, refs, proposal_digest(refs), out)
        state.next_position += 1


def on_pre_prepare(state: State, event: Received) -> list[EngineOutput]:
    """Accept the primary's proposal if there is none yet for its view and position (PBFT §4.2)."""
    return consider_proposal(state, event.sender, event.sender, event.message)


def on_pre_prepare_copy(state: State, event: Received) -> list[EngineOutput]:
    """Accept a proposal of the primary that another member has handed on."""
    copy: PrePrepareCopy = event.message
    return consider_proposal(state, event.sender, copy.signer, copy.pre_prepare)


def consider_proposal(
    state: State, sender: ReplicaIndex, signer: ReplicaIndex, message: PrePrepare
) -> list[EngineOutput]:
    """Take a pre-prepare that `signer` has signed and `sender` has sent."""
    out: list[EngineOutput] = []
    slot = admit(state, sender, message, out)
    if slot is None:
        return out
    digest = proposal_digest(message.refs)
    if slot.refs is None:
        slot.pre_prepare = message
        accept(state, slot, message.refs, digest, out)
    elif slot.digest != digest:
        report_second_proposal(slot, signer, message, out)
    elif slot.pre_prepare is None or not slot.pre_prepare.signature:
        slot.pre_prepare = message  # the own one came back, signed
    elif sender != state.own:
        repeat_votes(state, slot, sender, out)  # it lacks something, or it would not say it again
    return out


def report_second_proposal(slot: Slot, signer: ReplicaIndex, message: PrePrepare, out: list[EngineOutput]) -> None:
    """Report a primary that proposes two things for one position."""
    first = slot.pre_prepare
    if first is None:
        out.append(Reject(signer, "a pre-prepare contradicts the new view"))
    elif not slot.accused >> signer & 1:
        slot.accused |= 1 << signer
        second = message.statement()
        out.append(Accuse(Evidence(signer, first.statement(), first.signature, second, message.signature)))


def accept(state: State, slot: Slot, refs: tuple[BatchRef, ...], digest: bytes, out: list[EngineOutput]) -> None:
    """Accept a proposal: fetch what is missing, and vote as soon as it is all here."""
    state.place(slot, refs, digest)
    for ref in refs:
        note_proposed(state, ref)
    if slot.missing:
        out.append(Want(tuple(slot.missing.values()), state.others))
    vote(state, slot, out)
    decide(state, slot, out)


# --- PREPARE and COMMIT ---------------------------------------------------------------------------------------------


def vote(state: State, slot: Slot, out: list[EngineOutput]) -> None:
    """Cast the votes that are due, each behind the record that binds this replica to it.

    A vote vouches for the bodies too, so it waits for them. The primary votes like everybody else: its
    pre-prepare counts for nothing, and "prepared" means a quorum of equal PREPAREs.
    """
    if slot.refs is None or slot.missing or not may_vote(state, slot.position):
        return
    if not slot.voted:
        slot.voted = True
        out.append(Persist(Accepted(state.view, slot.position, slot.refs)))
        if state.primary == state.own and slot.pre_prepare is not None:
            out.append(Broadcast(slot.pre_prepare))
        out.append(Broadcast(Prepare(state.view, slot.position, slot.digest)))
    if not slot.commit_voted:
        certificate = slot.prepares.certificate(slot.digest, state.quorum.quorum)
        if certificate is not None:
            slot.commit_voted = True
            slot.prepared = PreparedProof(certificate, slot.refs)
            out.append(Persist(Prepared(slot.prepared)))
            out.append(Broadcast(CommitVote(state.view, slot.position, slot.digest)))


def may_vote(state: State, position: int) -> bool:
    """Say whether a vote for a position is allowed: in this view, between the water marks (PBFT §4.3)."""
    return state.active and state.sealed is None and state.low < position <= state.vote_limit


def on_prepare(state: State, event: Received) -> list[EngineOutput]:
    """Count a PREPARE; a quorum of equal ones makes the proposal prepared (PBFT §4.2)."""
    out: list[EngineOutput] = []
    message: Prepare = event.message
    slot = admit(state, event.sender, message, out)
    if slot is None:
        return out
    repeated = slot.prepares.has(event.sender)
    evidence = slot.prepares.add(event.sender, message.statement(), message.signature)
    if evidence is not None:
        accuse(slot, evidence, out)
        return out
    if repeated:
        if event.sender != state.own and slot.decision is not None:
            repeat_commit(state, slot, event.sender, out)
        return out
    if slot.refs is None and slot.prepares.count(message.digest) >= state.quorum.weak:
        notice_proposal(state, slot)
    vote(state, slot, out)
    return out


def on_commit(state: State, event: Received) -> list[EngineOutput]:
    """Count a COMMIT; a quorum of equal ones decides the position (PBFT §4.2)."""
    out: list[EngineOutput] = []
    message: CommitVote = event.message
    slot = admit(state, event.sender, message, out)
    if slot is None:
        return out
    evidence = slot.commits.add(event.sender, message.statement(), message.signature)
    if evidence is not None:
        accuse(slot, evidence, out)
        return out
    if slot.refs is None and slot.commits.count(message.digest) >= state.quorum.weak:
        notice_proposal(state, slot)
    decide(state, slot, out)
    return out


def notice_proposal(state: State, slot: Slot) -> None:
    """Remember that a correct member votes for a proposal that is not here: it will be asked for."""
    if state.top <= state.committed:
        state.progress_at = state.now
    state.top = max(state.top, slot.position)


def accuse(slot: Slot, evidence: Evidence, out: list[EngineOutput]) -> None:
    """Report a member that voted twice, once for each slot."""
    if not slot.accused >> evidence.signer & 1:
        slot.accused |= 1 << evidence.signer
        out.append(Accuse(evidence))


# --- Decisions ------------------------------------------------------------------------------------------------------


def decide(state: State, slot: Slot, out: list[EngineOutput]) -> None:
    """Note a decision once a quorum of COMMITs for the accepted proposal is here.

    The certificate alone is the proof: each COMMIT in it vouches for a prepared certificate.
    """
    if slot.decision is not None or slot.refs is None or slot.position <= state.committed:
        return
    certificate = slot.commits.certificate(slot.digest, state.quorum.quorum)
    if certificate is not None:
        slot.decision = Commit(slot.position, slot.refs, CommitProof(certificate))
        deliver(state, out)


def deliver(state: State, out: list[EngineOutput]) -> None:
    """Hand out decisions in the order of their positions, without a gap, once their bodies are here (PBFT §4.2)."""
    progressed = False
    while True:
        slot = state.slots.get(state.committed + 1)
        if slot is None or slot.decision is None or slot.missing:
            break
        progressed = True
        state.committed += 1
        out.append(slot.decision)
        for ref in slot.decision.refs:
            state.pending.discard(ref.digest)
            state.ordered.setdefault(ref.digest, slot.position)
            note_committed(state, ref)
    if progressed:
        state.progress_at = state.now
        state.committed_in_view = state.committed_in_view or state.active
        state.view_timer.progressed()
        propose(state, out)


# --- What is let in -------------------------------------------------------------------------------------------------


def admit(state: State, sender: ReplicaIndex, message: Vote, out: list[EngineOutput]) -> Slot | None:
    """Return the slot that a message of the normal case is about, or None where it is not for now."""
    if state.sealed is not None:
        return None
    if message.view != state.view or not state.active:
        if message.view < state.view:
            tell_new_view(state, sender, message.view, out)
        else:
            hold(state, sender, message, out)
        return None
    if message.position > state.window_end:
        note_ahead(state, sender, message.position, out)
        return None
    if message.position <= state.low:
        return None
    return state.slot(message.position)


def hold(state: State, sender: ReplicaIndex, message: Vote, out: list[EngineOutput]) -> None:
    """Keep a message of a view that is not entered yet, and ask for what would let us enter it."""
    state.early[sender].append((sender, message))
    state.spoken[sender] = max(state.spoken[sender], message.view)
    if message.view > state.view:
        ask_new_view(state, sender, message.view, out)


def ask_new_view(state: State, peer: ReplicaIndex, view: int, out: list[EngineOutput]) -> None:
    """Ask a member that speaks of a later view for its NEW-VIEW, now and then."""
    candidate = state.candidates.get(state.context.leaders.leader(view))
    if candidate is not None and candidate.view >= view:
        return
    if may_ask(state, peer):
        out.append(Send(peer, FetchNewView(view)))


def tell_new_view(state: State, peer: ReplicaIndex, view: int, out: list[EngineOutput]) -> None:
    """Send the last NEW-VIEW to a member that speaks of an earlier view, now and then."""
    if state.new_view is not None and state.new_view.view > view and not just_entered(state) and may_ask(state, peer):
        send_new_view(state, peer, out)


def just_entered(state: State) -> bool:
    """Say whether this view is so young that its NEW-VIEW may still be on the way to everybody."""
    return state.active and state.now - state.entered_at < state.options.retransmit_delay_ms


def may_ask(state: State, peer: ReplicaIndex) -> bool:
    """Say whether a member may be bothered about views again; at most once for each retransmission."""
    if peer == state.own or state.now - state.answered_at[peer] < state.options.retransmit_delay_ms:
        return False
    state.answered_at[peer] = state.now
    return True


def send_new_view(state: State, peer: ReplicaIndex, out: list[EngineOutput]) -> None:
    """Hand on the NEW-VIEW that began the last view entered; a primary's own one is signed again."""
    if state.new_view is None or peer == state.own:
        return
    signer = state.context.leaders.leader(state.new_view.view)
    if signer == state.own and state.new_view.view < state.view:
        # Whoever has left a view signs nothing of it again, but what was signed then may still be handed on.
        if state.new_view.signature:
            out.append(Send(peer, state.new_view))
    elif signer == state.own:
        out.append(Send(peer, msgspec.structs.replace(state.new_view, signature=b"")))
    else:
        out.append(Send(peer, NewViewCopy(signer, state.new_view)))


def note_ahead(state: State, sender: ReplicaIndex, position: int, out: list[EngineOutput]) -> None:
    """Ask for a state transfer once a correct member votes beyond everything that is kept here."""
    state.ahead[sender] = max(state.ahead[sender], position)
    beyond = sorted((place for place in state.ahead if place > state.window_end), reverse=True)
    if len(beyond) < state.quorum.weak:
        return
    target = beyond[state.quorum.weak - 1]
    if target - state.behind_reported >= state.context.limits.checkpoint_interval:
        state.behind_reported = target
        sources = tuple(index for index, place in enumerate(state.ahead) if place >= target)
        # A member votes for a position only with a stable checkpoint at most L below it.
        reachable = target - (state.vote_limit - state.low)
        out.append(Behind(max(reachable, state.committed + 1), sources))


# --- Saying it again ------------------------------------------------------------------------------------------------


def repeat_commit(state: State, slot: Slot, peer: ReplicaIndex, out: list[EngineOutput]) -> None:
    """Send one member the own COMMIT of this view again."""
    if slot.commit_voted and may_vote(state, slot.position):
        out.append(Send(peer, CommitVote(state.view, slot.position, slot.digest)))


def repeat_votes(state: State, slot: Slot, peer: ReplicaIndex, out: list[EngineOutput]) -> None:
    """Send one member the own votes of this view again."""
    if slot.voted and may_vote(state, slot.position):
        out.append(Send(peer, Prepare(state.view, slot.position, slot.digest)))
        repeat_commit(state, slot, peer, out)
