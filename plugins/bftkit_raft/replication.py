"""What a leader does: append, send, count acknowledgements, commit (Raft §3.5, §3.6).

Its messages to followers leave in parallel with the write to its own disk (Raft §10.2.1), so they are `early`; its own
acknowledgement is a message to itself behind that write.
"""

from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Received
from bftkit.core.outputs import EngineOutput, Persist, Reject, Send
from bftkit_raft.commitment import commit_through
from bftkit_raft.messages import (
    AppendAccepted,
    Appended,
    AppendEntries,
    AppendRejected,
    Entry,
    SnapshotNeeded,
)
from bftkit_raft.progress import Mode, Progress, size_of
from bftkit_raft.state import State

# --- Appending ------------------------------------------------------------------------------------------------------


def propose(state: State, out: list[EngineOutput]) -> None:
    """Append what waits, as far as the pipeline, the window and the bound on uncommitted bytes allow.

    During a transfer nothing is appended, so that the target can catch up (Raft §3.10).
    """
    if not len(state.pending) or state.sealed is not None or state.handover is not None:
        return
    log, options = state.log, state.options
    first, entries = log.last + 1, []
    while (
        len(state.pending)
        and log.last < min(state.commit + options.in_flight, state.window_end)
        and state.uncommitted_bytes < options.uncommitted_bytes
    ):
        entry = Entry(state.term, tuple(state.pending.take(options.batches_per_entry)))
        for ref in entry.refs:
            state.offer_at.pop(ref.digest, None)
            state.uncommitted_bytes += ref.size
        state.append(entry)
        entries.append(entry)
    if entries:
        record(state, first, tuple(entries), out)


def record(state: State, first: int, entries: tuple[Entry, ...], out: list[EngineOutput]) -> None:
    """Write entries that were just appended to the own disk, which acknowledges them like a follower."""
    out.append(Persist(Appended(first, state.log.term_at(first - 1), entries)))
    out.append(Send(state.own, AppendAccepted(state.term, first + len(entries) - 1, 0)))


# --- Sending --------------------------------------------------------------------------------------------------------


def next_round(state: State) -> None:
    """Begin a broadcast: whoever answers it has taken this member for the leader after now (Raft §6.4)."""
    state.round += 1
    if state.options.lease_reads:
        sent = state.round_sent_at
        while sent and sent[0][1] + state.options.lease_ms <= state.now:
            sent.popleft()  # a lease from then on would be over
        sent.append((state.round, state.now))


def send_appends(state: State, out: list[EngineOutput]) -> None:
    """Send each follower what it is to know: one message at most."""
    for peer in state.others:
        progress = state.progress[peer]
        message = message_for(state, progress)
        if message is not None:
            progress.round_sent = state.round
            out.append(Send(peer, message, early=True))


def message_for(state: State, progress: Progress) -> AppendEntries | SnapshotNeeded | None:
    """Return what one follower is sent now, or None."""
    log, options = state.log, state.options
    if progress.next <= log.base:
        progress.probe(progress.next)
        progress.mode = Mode.SNAPSHOT
    if progress.mode is Mode.SNAPSHOT:
        return SnapshotNeeded(state.term, log.base, state.round) if is_due(state, progress) else None
    if progress.mode is Mode.PROBE:
        if progress.asked and not is_due(state, progress):
            return None
        progress.asked = True
        entries = log.behind(progress.next - 1, options.entries_per_message)
        return entries_for(state, progress, progress.next - 1, entries)
    if progress.next <= log.last and not progress.is_full(options.peer_messages, options.peer_bytes):
        previous = progress.next - 1
        entries = log.behind(previous, options.entries_per_message)
        progress.sent(previous + len(entries), size_of(entries))
        return entries_for(state, progress, previous, entries)
    if is_due(state, progress) or (progress.match == log.last and progress.commit_sent < state.commit):
        # A heartbeat names what is acknowledged, so that it never finds a gap that only its being early has made.
        return entries_for(state, progress, progress.match, ())
    return None


def is_due(state: State, progress: Progress) -> bool:
    """Say whether a follower has not been sent the newest round."""
    return progress.round_sent < state.round


def entries_for(state: State, progress: Progress, previous: int, entries: tuple[Entry, ...]) -> AppendEntries:
    """Return a message with entries behind a position."""
    progress.commit_sent = state.commit
    return AppendEntries(state.term, previous, state.log.term_at(previous), entries, state.commit, state.round)


# --- Answers --------------------------------------------------------------------------------------------------------


def heard(state: State, sender: ReplicaIndex, term: int, round_: int) -> Progress | None:
    """Return what is known of a follower that answers in this term; None where the answer is for somebody else."""
    if not state.leads or term != state.term:
        return None
    progress = state.progress[sender]
    progress.heard_at = state.now
    progress.round = max(progress.round, min(round_, state.round))
    return progress


def on_append_accepted(state: State, event: Received) -> list[EngineOutput]:
    """Count an acknowledgement; entries of this term that a quorum holds are committed, with all before (§3.6.2)."""
    out: list[EngineOutput] = []
    message: AppendAccepted = event.message
    progress = heard(state, event.sender, message.term, message.round)
    if progress is None:
        return out
    if message.position > state.log.last:
        out.append(Reject(event.sender, "it acknowledges entries that nobody has sent"))
        return out
    if progress.accepted(message.position):
        commit_by_counting(state, out)
    return out


def commit_by_counting(state: State, out: list[EngineOutput]) -> None:
    """Commit what a quorum has acknowledged, if it is of the current term.

    An older entry is not safe by its copies alone; it is committed with the first of this term (Raft §3.6.2, Fig. 3.7).
    """
    matches = sorted((progress.match for progress in state.progress), reverse=True)
    reached = matches[state.quorum.quorum - 1]
    if reached > state.commit and state.log.term_at(reached) == state.term:
        commit_through(state, reached, out)


def on_append_rejected(state: State, event: Received) -> list[EngineOutput]:
    """Go back in a follower's log to where it may be the own one (Raft §3.5, end)."""
    message: AppendRejected = event.message
    progress = heard(state, event.sender, message.term, message.round)
    if progress is None or event.sender == state.own or not progress.match < message.position <= state.log.last:
        return []
    if progress.mode is not Mode.REPLICATE and message.position != progress.next - 1:
        return []  # the answer to an earlier probe
    # Both logs may be the same up to the own last entry of the follower's term there; where this log has none of that
    # term below, they part before the follower's first.
    nearest = state.log.last_up_to_term(message.conflict_term)
    if nearest >= message.position or state.log.term_at(nearest) != message.conflict_term:
        nearest = message.conflict_position - 1
    progress.probe(min(nearest + 1, message.position))
    return []
