"""What a follower does with its leader's log (Raft §3.5), and with bodies that arrive.

An entry enters the log only once the bodies of its batches are durable here: the acknowledgement vouches for them
too. What lacks one waits in `deferred`, with everything behind it.
"""

from bftkit.core.batch import BatchRef
from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Available, Received
from bftkit.core.outputs import Behind, EngineOutput, Persist, Reject, Send, Want
from bftkit_raft.commitment import commit_through
from bftkit_raft.messages import (
    AppendAccepted,
    Appended,
    AppendEntries,
    AppendRejected,
    Entry,
    SnapshotNeeded,
)
from bftkit_raft.roles import become_follower
from bftkit_raft.state import Role, State

# --- The leader's word ----------------------------------------------------------------------------------------------


def follows(state: State, sender: ReplicaIndex, term: int, out: list[EngineOutput]) -> bool:
    """Take note of a word of the leader of a term; say whether it is the current one."""
    if term < state.term:
        out.append(Send(sender, AppendRejected(state.term, 0, 0, 0, 0)))  # its sender steps down (Raft §3.3)
        return False
    if state.leads or (state.leader is not None and state.leader != sender):
        out.append(Reject(sender, f"a second leader in term {term}"))
        return False
    if state.role is not Role.FOLLOWER or state.leader is None:
        become_follower(state, sender)
    state.heard_at = state.quiet_since = state.now
    return True


def on_append_entries(state: State, event: Received) -> list[EngineOutput]:
    """Append what the leader sends, where the log before it is the same (Raft Fig. 3.1, AppendEntries RPC)."""
    out: list[EngineOutput] = []
    message: AppendEntries = event.message
    if not follows(state, event.sender, message.term, out):
        return out
    state.leader_round = max(state.leader_round, message.round)
    if not is_same_before(state, message):
        out.append(Send(event.sender, rejection(state, message)))
        return out
    if not take_entries(state, message, out):
        return out
    state.leader_commit = max(state.leader_commit, message.commit)
    acknowledge(state, out)
    return out


def is_same_before(state: State, message: AppendEntries) -> bool:
    """Say whether this log, with what is deferred, is the leader's up to `previous_position` (Raft §3.5)."""
    previous, log = message.previous_position, state.log
    if previous <= max(state.commit, state.matched):
        return True  # what is decided is the same everywhere
    if state.deferred and previous <= state.matched + len(state.deferred):
        return state.deferred[previous - state.matched - 1].term == message.previous_term
    return previous <= log.last and log.term_at(previous) == message.previous_term


def rejection(state: State, message: AppendEntries) -> AppendRejected:
    """Say where the logs part, as well as it can be seen from here (Raft §3.5, end)."""
    previous, log = message.previous_position, state.log
    if previous > log.last:
        end = max(log.last, state.matched + len(state.deferred))
        return AppendRejected(state.term, previous, 0, end + 1, message.round)
    conflict = log.term_at(previous)
    first = max(log.first_of_term(conflict), state.commit + 1)
    return AppendRejected(state.term, previous, conflict, first, message.round)


def take_entries(state: State, message: AppendEntries, out: list[EngineOutput]) -> bool:
    """Skip what is here, defer the rest, append what is complete; False where the sender contradicts a decision."""
    log, previous, entries = state.log, message.previous_position, message.entries
    count, known = len(entries), 0
    # Entries that are here already are not written again: a late message must not truncate what came after it (§3.5).
    while known < count and (position := previous + known + 1) <= log.last:
        if log.term_at(position) != entries[known].term:
            if position > state.commit:
                break
            if position > log.base:
                return False  # a leader that was deposed, and does not know: what is decided stays
        known += 1
    reached = previous + known
    term = entries[known - 1].term if known else message.previous_term
    if state.matched < reached <= log.last and log_reaches(state, reached, term):
        drop_deferred_through(state, reached)
    defer(state, reached, entries[known:])
    append_complete(state, out)
    return True


def log_reaches(state: State, position: int, term: int) -> bool:
    """Say whether the log itself, and not only what is deferred, holds the leader's entry at a position (Raft §3.5).

    Of an earlier leader there may be others still, in the place of those that wait for their bodies.
    """
    return position <= state.commit or state.log.term_at(position) == term


def drop_deferred_through(state: State, position: int) -> None:
    """Note that the log is the leader's up to a position, so that what is deferred begins behind it."""
    state.deferred = state.deferred[position - state.matched :]
    state.matched = position


def defer(state: State, reached: int, entries: tuple[Entry, ...]) -> None:
    """Add entries behind a position to what is deferred, as far as they are new and the window reaches."""
    end = state.matched + len(state.deferred)
    for entry in entries[max(0, end - reached) :] if reached <= end else ():
        end += 1
        if end > state.window_end and entry.refs:
            break
        state.deferred.append(entry)


def append_complete(state: State, out: list[EngineOutput]) -> None:
    """Append the deferred entries up to the first that lacks a body, and ask for what is missing.

    Whatever conflicts with them is truncated only now: before, nothing would stand in its place.
    """
    held, deferred = state.held, state.deferred
    complete = 0
    for entry in deferred:
        if not all(held.get(ref.digest) == ref for ref in entry.refs):
            break
        complete += 1
    if complete:
        first = state.matched + 1
        if first <= state.log.last:
            state.truncate(first)
        previous_term = state.log.term_at(first - 1)
        taken = tuple(deferred[:complete])
        for entry in taken:
            state.append(entry)
        del deferred[:complete]
        state.matched = first + complete - 1
        out.append(Persist(Appended(first, previous_term, taken)))
    missing = {ref.digest: ref for entry in deferred for ref in entry.refs if held.get(ref.digest) != ref}
    if missing and state.leader is not None:
        out.append(Want(tuple(missing.values()), sources_of(state, state.leader)))


def sources_of(state: State, leader: ReplicaIndex) -> tuple[ReplicaIndex, ...]:
    """List who may have what the leader's log names, the leader first."""
    return (leader, *(index for index in state.others if index != leader))


def acknowledge(state: State, out: list[EngineOutput]) -> None:
    """Tell the leader how far this log is its log, and hand out what that commits."""
    if state.leader is not None:
        out.append(Send(state.leader, AppendAccepted(state.term, state.matched, state.leader_round)))
    commit_through(state, min(state.leader_commit, state.matched), out)


def on_snapshot_needed(state: State, event: Received) -> list[EngineOutput]:
    """Learn that the leader's log begins behind what is missing here: the replica catches up by itself (Raft §5)."""
    out: list[EngineOutput] = []
    message: SnapshotNeeded = event.message
    if not follows(state, event.sender, message.term, out):
        return out
    state.leader_round = max(state.leader_round, message.round)
    if message.position > state.commit:
        out.append(Behind(message.position, (event.sender,)))
    acknowledge(state, out)
    return out


# --- Bodies ---------------------------------------------------------------------------------------------------------


def on_available(state: State, event: Available) -> list[EngineOutput]:
    """Take note of bodies: a leader may append them, a follower what it has deferred."""
    out: list[EngineOutput] = []
    for ref in event.refs:
        take_body(state, ref, decided=event.decided)
    if state.deferred:
        before = state.matched
        append_complete(state, out)
        if state.matched > before:
            acknowledge(state, out)
    if event.decided:
        for ref in event.refs:
            if ref.digest not in state.ordered and not is_deferred(state, ref):
                state.forget(ref.digest)
    return out


def take_body(state: State, ref: BatchRef, *, decided: bool) -> None:
    """Note a durable body; one that is new, and in no entry, waits to be appended."""
    state.held[ref.digest] = ref
    if not decided and ref.digest not in state.ordered:
        state.wait(ref)


def is_deferred(state: State, ref: BatchRef) -> bool:
    """Say whether an entry that waits for bodies names a batch."""
    return any(ref in entry.refs for entry in state.deferred)
