"""Reads that see everything committed before they were asked for, without a place in the log (Raft §6.4).

A leader notes its commit index and makes sure, by one round of heartbeats for all reads that wait, that it still is
the leader. A follower asks it for that index. With leases a leader relies on clocks instead of a round (§6.4.1).
"""

from bftkit.core.inputs import Read, Received, TimerFired
from bftkit.core.outputs import EngineOutput, Persist, ReadReady, Send
from bftkit_raft.messages import Reader, ReadIndex, ReadIndexReply
from bftkit_raft.replication import next_round
from bftkit_raft.state import Asked, Confirmation, State

QUESTIONS_KEPT = 4
"""Questions of one follower that wait at a leader: it has one at a time, and repeats it."""


def on_read(state: State, event: Read) -> list[EngineOutput]:
    """Let a read wait; what can be done for it is done at the end of the step."""
    if state.sealed is None and state.reads.count < state.options.waiting_reads:
        state.reads.tokens.append(event.token)
    return []


# --- The leader -----------------------------------------------------------------------------------------------------


def on_read_index(state: State, event: Received) -> list[EngineOutput]:
    """Let a follower's question wait for a round, once."""
    message: ReadIndex = event.message
    question = (event.sender, message.life, message.number)
    questions = state.reads.questions
    mine = sum(1 for sender, _, _ in questions if sender == event.sender)
    if state.leads and question not in questions and mine < QUESTIONS_KEPT:
        questions.append(question)
    return []


def serve_reads(state: State, out: list[EngineOutput]) -> None:
    """Answer what is confirmed, and begin a round for what waits; called after each step of a leader."""
    reads = state.reads
    if state.options.lease_reads:
        renew_lease(state)
    if reads.confirming is not None and is_confirmed(state, reads.confirming.round):
        confirmed, reads.confirming = reads.confirming, None
        answer(state, confirmed, out)
    if reads.confirming is not None or not (reads.tokens or reads.questions) or not may_read(state):
        return
    waiting = Confirmation(0, state.commit, reads.tokens, reads.questions)
    reads.tokens, reads.questions = [], []
    if holds_lease(state):
        answer(state, waiting, out)
        return
    next_round(state)
    waiting.round = state.round
    if is_confirmed(state, waiting.round):
        answer(state, waiting, out)  # alone, it is its own quorum
    else:
        reads.confirming = waiting


def may_read(state: State) -> bool:
    """Say whether the leader's commit index is the newest there is: not before it has committed in its term (§6.4)."""
    return state.commit >= state.term_begin


def is_confirmed(state: State, round_: int) -> bool:
    """Say whether a quorum, the leader included, has answered a round or a later one."""
    return quorum_round(state) >= round_


def quorum_round(state: State) -> int:
    """Return the newest round that a quorum has answered; the leader itself answers each at once."""
    rounds = [state.round if member == state.own else one.round for member, one in enumerate(state.progress)]
    return sorted(rounds, reverse=True)[state.quorum.quorum - 1]


def answer(state: State, confirmed: Confirmation, out: list[EngineOutput]) -> None:
    """Tell everybody whose read is confirmed how far to execute first."""
    for token in confirmed.tokens:
        out.append(ReadReady(token, confirmed.position))
    for asker, life, number in confirmed.questions:
        out.append(Send(asker, ReadIndexReply(state.term, life, number, confirmed.position)))


# --- Leases, Raft §6.4.1 --------------------------------------------------------------------------------------------


def renew_lease(state: State) -> None:
    """Count the lease from when the newest round was *sent* that a quorum has answered: later would be too long."""
    reached = quorum_round(state)
    sent = state.round_sent_at
    while sent and sent[0][0] <= reached:
        state.lease_from = sent.popleft()[1]


def holds_lease(state: State) -> bool:
    """Say whether nobody else can have been elected yet, by the clock, if clocks drift no more than is stated.

    Whoever was told to stand for election need not wait for anybody: that ends leases for the rest of the term.
    """
    if not state.options.lease_reads or state.lease_is_over or state.handover is not None or state.lease_from is None:
        return False
    return state.now < state.lease_from + state.options.lease_ms


# --- Followers ------------------------------------------------------------------------------------------------------


def ask_leader(state: State, out: list[EngineOutput]) -> None:
    """Ask the leader about all reads that wait, one question at a time; called after each step of a follower."""
    reads = state.reads
    if not reads.tokens or reads.asked is not None or state.leader is None or state.sealed is not None:
        return
    if not reads.life_is_recorded:
        # A late answer to an earlier life would be older than the reads of this one.
        reads.life += 1
        reads.life_is_recorded = True
        out.append(Persist(Reader(reads.life)))
    reads.number += 1
    reads.asked = Asked(reads.number, state.leader, reads.tokens)
    reads.tokens = []
    ask(state, reads.asked, out)


def ask(state: State, asked: Asked, out: list[EngineOutput]) -> None:
    """Send a question, for the first time or again."""
    out.append(Send(asked.to, ReadIndex(state.term, state.reads.life, asked.number)))


def on_read_timeout(state: State, event: TimerFired) -> list[EngineOutput]:
    """Ask again: the question or its answer may have been lost."""
    out: list[EngineOutput] = []
    if state.reads.asked is not None:
        ask(state, state.reads.asked, out)
    return out


def on_read_index_reply(state: State, event: Received) -> list[EngineOutput]:
    """Serve the reads that were asked for; a late or repeated answer is to nobody."""
    message: ReadIndexReply = event.message
    reads = state.reads
    if reads.asked is None or (message.life, message.number) != (reads.life, reads.asked.number):
        return []
    tokens, reads.asked = reads.asked.tokens, None
    return [ReadReady(token, message.position) for token in tokens]
