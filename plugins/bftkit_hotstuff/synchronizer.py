"""Rounds: they begin with a QC or a TC of the round before, and with nothing else (Jolteon Fig. 2, DiemBFT v4 §3.5).

Whoever has waited for too long gives the round up and says so to everybody, with the newest QC that it knows. f + 1
members that do so take the others along; a quorum of them is a TC. No single message moves a round.
"""

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Received, TimerFired
from bftkit.core.outputs import Broadcast, EngineOutput, Persist, Send, Want
from bftkit.core.votes import Evidence
from bftkit_hotstuff.evidence import accuse
from bftkit_hotstuff.fetching import ask_again, want_block
from bftkit_hotstuff.leaders import leader
from bftkit_hotstuff.messages import (
    Certificates,
    GaveUp,
    Timeout,
    TimeoutCertificate,
    TimeoutVote,
    Vote,
    round_of,
)
from bftkit_hotstuff.state import State
from bftkit_hotstuff.watching import RETRANSMIT, deadline, has_work, offer, offer_to_all, window_is_full

# --- Certificates ---------------------------------------------------------------------------------------------------


def take_qc(state: State, qc: QuorumCertificate, out: list[EngineOutput]) -> None:
    """Take a QC: the newest one is kept, fetched for, and begins the round after it (Jolteon Fig. 2, "Lock")."""
    if round_of(qc) <= round_of(state.high_qc):
        return
    state.high_qc, state.unannounced = qc, False
    if state.tc is not None and state.tc.round <= round_of(qc):
        state.tc = None
    if round_of(qc) >= state.round:
        enter_round(state, round_of(qc) + 1)
    want_block(state, qc, out)


def take_tc(state: State, tc: TimeoutCertificate | None, out: list[EngineOutput]) -> None:
    """Take a TC: it begins the round after it, whose leader is told (Jolteon Fig. 2, "Advance Round")."""
    if tc is None:
        return
    take_qc(state, tc.high_qc, out)
    if tc.round < state.round:
        return
    state.tc = tc
    state.failures += 1
    enter_round(state, tc.round + 1)
    first = leader(state)
    if first is not None and first != state.own:
        out.append(Send(first, Certificates(state.high_qc, tc)))


def enter_round(state: State, number: int) -> None:
    """Begin a round, with its own patience in saying things again."""
    if state.has_given_up:
        state.armed.pop(RETRANSMIT, None)
    state.round, state.entered_at = number, state.now
    state.proposal = None
    state.expecting_since = None
    state.retransmissions = 0
    for old in [known for known in state.votes if known < number - 1]:
        del state.votes[old]


def on_certificates(state: State, event: Received) -> list[EngineOutput]:
    """Take what another member's round rests on."""
    out: list[EngineOutput] = []
    message: Certificates = event.message
    if state.sealed is None:
        take_qc(state, message.high_qc, out)
        take_tc(state, message.tc, out)
        if message.round < state.round:
            tell_certificates(state, event.sender, out)
    return out


def tell_certificates(state: State, peer: ReplicaIndex, out: list[EngineOutput]) -> None:
    """Tell a member that is in an earlier round what the own one rests on, now and then."""
    if may_answer(state, peer):
        out.append(Send(peer, Certificates(state.high_qc, state.entry_tc)))


def may_answer(state: State, peer: ReplicaIndex) -> bool:
    """Say whether a member may be told something again; at most once for each retransmission."""
    if peer == state.own or state.now - state.answered_at[peer] < state.options.retransmit_delay_ms:
        return False
    state.answered_at[peer] = state.now
    return True


# --- Giving a round up ------------------------------------------------------------------------------------------------


def on_round_timeout(state: State, event: TimerFired) -> list[EngineOutput]:
    """Give the round up if it has had its time; while the window is full, nobody is to blame."""
    out: list[EngineOutput] = []
    until = deadline(state)
    if until is None or until > state.now:
        return out
    if window_is_full(state):
        state.expecting_since = state.now
    else:
        give_up(state, out)
    return out


def on_relay_timeout(state: State, event: TimerFired) -> list[EngineOutput]:
    """Offer the leader what waits, and tell him what the round rests on; from then on the round's time runs."""
    out: list[EngineOutput] = []
    first = leader(state)
    if first == state.own or state.has_given_up or not offer(state, first, out):
        return out
    if state.expecting_since is None:
        state.expecting_since = state.now
        if state.proposal is None and first is not None:
            tell_certificates(state, first, out)
    return out


def give_up(state: State, out: list[EngineOutput]) -> None:
    """Send one's TIMEOUT for this round; from the record on, never vote in it (Jolteon Fig. 2, "Timeout")."""
    if state.has_given_up or state.sealed is not None:
        return
    state.voted_round = state.round
    state.gave_up = GaveUp(state.round, state.high_qc, state.entry_tc, state.lock)
    state.own_timeout = None
    state.armed.pop(RETRANSMIT, None)
    out.append(Persist(state.gave_up))
    say_timeout(state, state.gave_up, out)
    offer_to_all(state, out)


def say_timeout(state: State, gave_up: GaveUp, out: list[EngineOutput]) -> None:
    """Send everybody the recorded TIMEOUT: always the same words."""
    state.timeout_said = gave_up.round
    out.append(Broadcast(state.own_timeout or Timeout(gave_up.round, gave_up.high_qc, gave_up.tc)))


def on_timeout(state: State, event: Received) -> list[EngineOutput]:
    """Take a TIMEOUT: first the certificates in it, then count it; an old one is answered with what is newer."""
    out: list[EngineOutput] = []
    message: Timeout = event.message
    if state.sealed is not None:
        return out
    take_qc(state, message.high_qc, out)
    take_tc(state, message.tc, out)
    if message.round < state.round:
        if state.now - state.entered_at >= state.options.retransmit_delay_ms:
            tell_certificates(state, event.sender, out)  # before that, what began the round may be on its way
        return out
    known = state.timeouts[event.sender]
    if known is not None and known.round == message.round:
        _repeated(state, event.sender, known, message, out)
        return out
    state.timeouts[event.sender] = message
    if event.sender == state.own:
        state.own_timeout = message
    count_timeouts(state, out)
    return out


def _repeated(state: State, sender: ReplicaIndex, known: Timeout, message: Timeout, out: list[EngineOutput]) -> None:
    """Look at a second TIMEOUT of a member for one round: a contradiction, or the wish to hear ours."""
    first, second = known.statement(), message.statement()
    if first != second:
        accuse(state, Evidence(sender, first, known.signature, second, message.signature), out)
    elif state.own_timeout is not None and state.own_timeout.round == message.round and may_answer(state, sender):
        out.append(Send(sender, state.own_timeout))


def count_timeouts(state: State, out: list[EngineOutput]) -> None:
    """Follow f + 1 members out of the round, one of whom is correct; a quorum's TIMEOUTs make a TC (Jolteon Fig. 2).

    Whoever has given it up in an earlier life, and may have said nothing, says it again then: it may wait for nothing
    that would remind it.
    """
    heard = {signer: one for signer, one in enumerate(state.timeouts) if one is not None and one.round == state.round}
    if len(heard) >= state.quorum.weak:
        if state.gave_up is not None and state.gave_up.round == state.round > state.timeout_said:
            say_timeout(state, state.gave_up, out)
        give_up(state, out)
    if len(heard) >= state.quorum.quorum:
        chosen = dict(list(heard.items())[: state.quorum.quorum])
        take_tc(state, make_tc(state.round, chosen), out)


def make_tc(round_number: int, timeouts: dict[ReplicaIndex, Timeout]) -> TimeoutCertificate:
    """Make a TC of a quorum's TIMEOUTs: each one's signed word, and the newest QC of them all."""
    votes = tuple(
        TimeoutVote(signer, round_of(timeouts[signer].high_qc), timeouts[signer].signature)
        for signer in sorted(timeouts)
    )
    newest = max((timeout.high_qc for timeout in timeouts.values()), key=round_of)
    return TimeoutCertificate(round_number, votes, newest)


# --- Saying it again --------------------------------------------------------------------------------------------------


def on_retransmit_timeout(state: State, event: TimerFired) -> list[EngineOutput]:
    """Repeat what was said in this round, and ask again for what is missing."""
    out: list[EngineOutput] = []
    state.retransmissions += 1
    ask_again(state, out)
    if not has_work(state) or state.now - state.entered_at < state.options.retransmit_delay_ms:
        return out
    node = state.proposal
    if node is not None:
        if node.missing:
            out.append(Want(tuple(node.missing.values()), state.others))
        if node.id == state.voted_block and not state.has_given_up:
            if node.block.author == state.own and node.proposal is not None:
                out.append(Broadcast(node.proposal))
            out.append(Broadcast(Vote(node.round, node.id)))
    if state.has_given_up and state.gave_up is not None:
        say_timeout(state, state.gave_up, out)
        offer_to_all(state, out)
    return out
