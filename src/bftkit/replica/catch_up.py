"""Catching up: peers tell how far they are, and whoever lags fetches decided positions, or a state where they are gone.

Everything fetched carries its own proof, so a liar can waste a request but not plant a decision:
entries carry the deciding votes, a state (`state_transfer.py`) is checked against a checkpoint
certificate. Learning never gives back a right to vote.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bftkit.core.batch import BatchRef
from bftkit.core.ids import ReplicaIndex, canonical
from bftkit.core.inputs import Synced
from bftkit.core.log import CommitEntry
from bftkit.core.outputs import Broadcast, Send
from bftkit.replica import state_transfer
from bftkit.replica.messages import (
    Commits,
    FetchCommits,
    FetchSnapshot,
    Progress,
    SnapshotAvailable,
    SnapshotChunk,
    StableCheckpoint,
)
from bftkit.replica.outputs import Report
from bftkit.replica.sync_timers import PROGRESS_TIMER, SYNC_TIMER, arm, arm_progress, arm_sync

if TYPE_CHECKING:
    from bftkit.replica.replica import Replica

COMMITS_BYTES = 1 << 20
"""Encoded length at which an answer with decided positions is not continued; the asker asks again from there."""

_FETCH_AHEAD = 256
"""Decided positions that may wait for their bodies before more are asked for."""


class CatchUp:
    """What peers say of themselves, and what is being fetched."""

    __slots__ = (
        "asked_at",
        "claims",
        "connected",
        "last_told",
        "next_peer",
        "timers",
    )

    def __init__(self, members: int) -> None:
        self.claims: list[Progress | None] = [None] * members
        self.connected = [False] * members
        self.asked_at = -1
        """Own position when somebody was last asked; no progress since means: ask another."""
        self.next_peer: ReplicaIndex = 0
        self.last_told: Progress | None = None
        self.timers: dict[str, bool] = {PROGRESS_TIMER: False, SYNC_TIMER: False}


def handlers(replica: "Replica") -> dict[type, Callable[[ReplicaIndex, Any], None]]:
    """Return the handler of each message that belongs here."""
    return {
        Progress: lambda sender, message: on_progress(replica, sender, message),
        FetchCommits: lambda sender, message: _on_fetch_commits(replica, sender, message),
        Commits: lambda sender, message: _on_commits(replica, sender, message),
        SnapshotAvailable: lambda sender, message: state_transfer.on_snapshot_available(replica, sender, message),
        FetchSnapshot: lambda sender, message: state_transfer.on_fetch_snapshot(replica, sender, message),
        SnapshotChunk: lambda sender, message: state_transfer.on_snapshot_chunk(replica, sender, message),
    }


def on_timer(replica: "Replica", timer: str) -> None:
    """Take one of the two timers of this file."""
    replica.catch_up.timers[timer] = False
    if timer == PROGRESS_TIMER:
        _tell_progress(replica)
    else:
        _ask_somebody(replica)


# -- how far everybody is -----------------------------------------------------------------------


def own_progress(replica: "Replica") -> Progress:
    """Say how far this replica is."""
    commits = replica.commits
    return Progress(commits.position, commits.height, replica.checkpoints.stable.position)


def on_peer_up(replica: "Replica", peer: ReplicaIndex) -> None:
    """Greet a member whose channel has opened."""
    replica.catch_up.connected[peer] = True
    replica.emit(Send(peer, own_progress(replica)))
    arm_progress(replica)


def on_peer_down(replica: "Replica", peer: ReplicaIndex) -> None:
    """Forget what a member said that is gone."""
    state = replica.catch_up
    state.connected[peer] = False
    state.claims[peer] = None
    state_transfer.on_source_gone(replica, peer)


def on_decided(replica: "Replica") -> None:
    """Note that the engine itself has decided a position."""
    arm_progress(replica)


def _tell_progress(replica: "Replica") -> None:
    """Repeat what others lack; fall silent once all that are connected are equal and nothing is pending."""
    state = replica.catch_up
    progress = own_progress(replica)
    unstable = replica.checkpoints.unstable_votes()
    differing = [peer for peer in replica.settings.others if state.connected[peer] and state.claims[peer] != progress]
    if progress != state.last_told:
        state.last_told = progress
        replica.emit(Broadcast(progress))
    else:
        # Their word may have been lost, and they have no reason of their own to repeat it.
        asking = Progress(progress.position, progress.height, progress.stable, asks=True)
        replica.emit(*(Send(peer, asking) for peer in differing))
    for vote in unstable:
        replica.resend(vote)
    if differing or unstable:
        arm_progress(replica)


def on_progress(replica: "Replica", sender: ReplicaIndex, message: Progress) -> None:
    """Compare with a peer: help it where it lags, be helped where it is ahead."""
    if sender == replica.own:
        return
    claim = Progress(message.position, message.height, message.stable)
    is_news = claim != replica.catch_up.claims[sender]
    replica.catch_up.claims[sender] = claim
    own = own_progress(replica)
    # Two of whom each is ahead in something would answer each other's answers for ever.
    answers = message.asks or is_news
    if message.asks or (is_news and (claim.position < own.position or claim.stable < own.stable)):
        replica.emit(Send(sender, own))
    if answers and claim.stable < own.stable and replica.checkpoints.stable.certificate is not None:
        replica.emit(Send(sender, StableCheckpoint(replica.checkpoints.stable)))
    if message.position > own.position:
        arm(replica, SYNC_TIMER, replica.settings.tuning.sync_grace_ms)
    if claim != own:
        arm_progress(replica)


# -- fetching what was decided ------------------------------------------------------------------


def on_behind(replica: "Replica", position: int, sources: Iterable[ReplicaIndex]) -> None:
    """Catch up to a position that somebody has proven or that enough members speak of."""
    for source in sources:
        claim = replica.catch_up.claims[source]
        if source != replica.own and (claim is None or claim.position < position):
            replica.catch_up.claims[source] = Progress(position, 0, 0)
    arm(replica, SYNC_TIMER, 0)


def _ask_somebody(replica: "Replica") -> None:
    """Look after a state that is on its way, and ask the next member that is ahead: it may have more to give."""
    if replica.state_transfer.installing is not None:
        return
    wants_state = state_transfer.look_after(replica)
    if _ask_next(replica) or wants_state:
        arm_sync(replica)


def _ask_next(replica: "Replica") -> bool:
    state = replica.catch_up
    own = replica.commits.position
    ahead = [
        peer for peer in replica.settings.others if (claim := state.claims[peer]) is not None and claim.position > own
    ]
    if not ahead:
        return False
    peer = next((candidate for candidate in ahead if candidate >= state.next_peer), ahead[0])
    if state.asked_at == own:
        # Whoever was asked has not helped since; the claim is worth nothing until it is repeated.
        state.claims[peer] = None
    state.next_peer = peer + 1
    state.asked_at = own
    replica.emit(Send(peer, FetchCommits(own)))
    return True


def _on_fetch_commits(replica: "Replica", sender: ReplicaIndex, message: FetchCommits) -> None:
    entries = replica.commits.after(message.after, replica.settings.tuning.sync_entries)
    if entries is not None:
        entries = _fitting(entries)
        replica.emit(Send(sender, Commits(entries, replica.commits.position)))
    elif replica.snapshot is not None:
        replica.emit(Send(sender, SnapshotAvailable(*replica.snapshot)))


def _fitting(entries: tuple[CommitEntry, ...]) -> tuple[CommitEntry, ...]:
    """Return as many of the first entries as one answer may hold, at least one."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(canonical(entry))
        if count and size > COMMITS_BYTES:
            return entries[:count]
    return entries


def prove_decided(replica: "Replica", sender: ReplicaIndex, refs: list[BatchRef]) -> list[BatchRef]:
    """Answer the offer of batches that were decided long ago with the proof of it; return those without one."""
    unproven: list[BatchRef] = []
    proving: dict[int, CommitEntry] = {}
    for ref in refs:
        position = replica.payloads.decided_at(ref.digest)
        entries = replica.commits.after(position - 1, 1) if position is not None else None
        if entries and ref in entries[0].refs:
            proving[entries[0].position] = entries[0]
        else:
            unproven.append(ref)
    for position in sorted(proving):
        replica.emit(Send(sender, Commits((proving[position],), replica.commits.position)))
    return unproven


def _on_commits(replica: "Replica", sender: ReplicaIndex, message: Commits) -> None:
    state = replica.catch_up
    if sender == replica.own or replica.state_transfer.installing is not None:
        return
    claim = state.claims[sender]
    state.claims[sender] = Progress(message.position, 0, 0) if claim is None else claim
    refs: list[BatchRef] = []
    proof = None
    for entry in message.entries:
        if entry.position <= replica.commits.position:
            refs.extend(ref for ref in entry.refs if replica.payloads.is_known(ref.digest))
            for ref in entry.refs:
                replica.mempool.committed(ref)
                replica.payloads.decided(ref, entry.position)
                # The engine may have it in a proposal by now, which is decided once more.
                replica.payloads.named_again(ref, replica.commits.position + replica.settings.window)
        elif entry.position == replica.commits.position + 1:
            replica.decide(entry)
            refs.extend(entry.refs)
            proof = entry.proof
    if refs or proof is not None:
        replica.tell_engine(Synced(replica.now, replica.commits.position, tuple(refs), proof))
    if proof is None:
        if message.position > replica.commits.position:
            # What was proved lies further ahead, as when a batch that was offered was decided long ago.
            arm(replica, SYNC_TIMER, replica.settings.tuning.sync_grace_ms)
        return
    arm_progress(replica)
    if message.position > replica.commits.position and replica.commits.waiting < _FETCH_AHEAD:
        state.asked_at = -1
        replica.emit(Send(sender, FetchCommits(replica.commits.position)))
        arm_sync(replica)
    else:
        replica.emit(Report("caught up", f"position {replica.commits.position}"))
