"""Elections (Raft §3.4), with pre-vote (§9.6), stickiness (§4.2.3) and check-quorum (§6.2) together.

A member asks whether it could win before it stands; that question changes nothing in whoever answers. Whoever hears
a leader refuses. A leader that does not hear a quorum for an election timeout gives up. Only an election that the
leader itself has asked for (§3.10) passes over the first two.
"""

from bftkit.core.inputs import Received, TimerFired
from bftkit.core.outputs import Broadcast, EngineOutput, Persist, Send
from bftkit_raft.messages import Entry, HardState, RequestVote, Vote
from bftkit_raft.progress import Progress
from bftkit_raft.replication import next_round, record
from bftkit_raft.roles import become_follower, hears_leader
from bftkit_raft.state import Role, State

# --- Standing -------------------------------------------------------------------------------------------------------


def on_election_timeout(state: State, event: TimerFired) -> list[EngineOutput]:
    """Ask for votes when no leader was heard for T to 2 T."""
    if state.leads or election_is_put_off(state) > 0:
        return []
    return ask_beforehand(state)


def election_is_put_off(state: State) -> int:
    """Return for how many milliseconds at least there is a reason not to stand; 0 or less for none."""
    patience = state.quiet_since + state.options.election_timeout_ms - state.now
    return max(patience, state.no_vote_until - state.now)


def ask_beforehand(state: State) -> list[EngineOutput]:
    """Ask who would vote for this member; neither its term nor anybody's changes by that (Raft §9.6)."""
    become_follower(state, None)
    state.role = Role.PRE_CANDIDATE
    state.quiet_since = state.now
    log = state.log
    return [Broadcast(RequestVote(state.term + 1, log.last, log.last_term, pre=True))]


def stand(state: State, *, transfer: bool) -> list[EngineOutput]:
    """Become a candidate of the next term. The own vote is cast like all others, when the request comes back."""
    become_follower(state, None)
    state.term += 1
    state.vote = state.own
    state.role = Role.CANDIDATE
    state.quiet_since = state.now
    log = state.log
    request = RequestVote(state.term, log.last, log.last_term, transfer=transfer)
    return [Persist(HardState(state.term, state.own)), Broadcast(request)]


# --- Voting ---------------------------------------------------------------------------------------------------------


def on_request_vote(state: State, event: Received) -> list[EngineOutput]:
    """Vote once in a term, for a log that is at least as far as the own one, and for nobody while a leader is heard."""
    out: list[EngineOutput] = []
    message: RequestVote = event.message
    # A leader that asks for votes has restarted, and is none any more: that is no reason to ignore it.
    if event.sender not in (state.own, state.leader) and not message.transfer and hears_leader(state):
        # Neither the term nor a timer changes (Raft §4.2.3). The answer carries the own term for one that lags.
        return [Send(event.sender, Vote(state.term, message.term, granted=False, pre=message.pre))]
    if message.pre:
        granted = message.term > state.term and may_vote(state, message)
        return [Send(event.sender, Vote(state.term, message.term, granted, pre=True))]
    is_later = message.term > state.term
    if is_later:
        state.term, state.vote = message.term, None
        become_follower(state, None)
    if message.term == state.term and state.vote is None and may_vote(state, message):
        state.vote = event.sender
        state.quiet_since = state.now  # a vote puts off the own election
        out.append(Persist(HardState(state.term, state.vote)))
    elif is_later:
        out.append(Persist(HardState(state.term, None)))
    granted = message.term == state.term and state.vote == event.sender
    out.append(Send(event.sender, Vote(state.term, message.term, granted)))
    return out


def may_vote(state: State, message: RequestVote) -> bool:
    """Say whether a candidate's log is at least as up-to-date as the own one (Raft §3.6.1)."""
    if state.now < state.no_vote_until and not message.transfer:
        return False
    log = state.log
    return (message.last_term, message.last_position) >= (log.last_term, log.last)


def on_vote(state: State, event: Received) -> list[EngineOutput]:
    """Count a vote that is granted to the candidature that runs."""
    message: Vote = event.message
    awaited = Role.PRE_CANDIDATE if message.pre else Role.CANDIDATE
    asked = state.term + 1 if message.pre else state.term
    if not message.granted or state.role is not awaited or message.asked != asked:
        return []
    state.votes |= 1 << event.sender
    if state.votes.bit_count() < state.quorum.quorum:
        return []
    return stand(state, transfer=False) if message.pre else lead(state)


# --- Leading --------------------------------------------------------------------------------------------------------


def lead(state: State) -> list[EngineOutput]:
    """Begin to lead: with an entry of this term, which commits all before it (Raft §3.6.2, §6.4).

    It names no batches, so it may stand behind the window's end; else a full window could never be committed.
    """
    out: list[EngineOutput] = []
    log = state.log
    state.role, state.leader = Role.LEADER, state.own
    state.votes = 0
    state.progress = [Progress(log.last + 1, state.now) for _ in range(state.quorum.members)]
    # All of it was durable before the own vote was cast.
    state.progress[state.own].accepted(log.last)
    state.uncommitted_bytes = sum(
        ref.size for entry in log.behind(state.commit, len(log.entries)) for ref in entry.refs
    )
    state.round = 0
    state.lease_is_over = False
    state.term_begin = log.last + 1
    entry = Entry(state.term, ())
    state.append(entry)
    record(state, state.term_begin, (entry,), out)
    next_round(state)
    return out
