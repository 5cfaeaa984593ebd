"""Fetching a state: what members offer, and one download at a time, which must keep moving.

A certificate proves what a state is, and says nothing of how long its encoding is or how fast it comes. So a
download is held to what an honest source can do: every part is as long as was asked for, and while others have a
state to offer, a whole part comes within `PATIENCE` looks. A size is believed up to twice what f + 1 members say, one
of whom is honest. Whoever was given up goes to the end of the line and stays in it: f liars have one turn each, at
most, before an honest member has its own, and nobody is distrusted for ever because its line was slow. See decision
0018.
"""

from typing import TYPE_CHECKING

from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Stable, Synced
from bftkit.core.outputs import Send
from bftkit.replica.inputs import SnapshotInstalled
from bftkit.replica.messages import MAX_PART_BYTES, FetchSnapshot, SnapshotAvailable, SnapshotChunk
from bftkit.replica.outputs import InstallSnapshot, Report, SendSnapshotChunk
from bftkit.replica.records import RecordKind
from bftkit.replica.sync_timers import SYNC_TIMER, arm, arm_progress, arm_sync

if TYPE_CHECKING:
    from bftkit.replica.replica import Replica

MAX_SNAPSHOT_BYTES = 4_294_967_296
"""Largest state that is taken from a peer, whatever others say."""

PATIENCE = 4
"""Looks in a row that may find no new part, before others have a turn who failed later; `2 * sync_grace_ms` apart."""

WRONG_PART = "a part of a state that is not as long as was asked for"
"""Why a source is given up at once."""


class Download:
    """A state on its way here."""

    __slots__ = ("certificate", "idle", "parts", "received", "seen", "size", "source")

    def __init__(self, certificate: CheckpointCertificate, size: int, source: ReplicaIndex) -> None:
        self.certificate = certificate
        self.size = size
        self.source = source
        self.parts: list[bytes] = []
        self.received = 0
        self.seen = -1
        """What had been received at the last look."""
        self.idle = 0
        """Looks in a row that found nothing new."""


class StateTransfer:
    """What members offer, what is being fetched, and what is being taken over."""

    __slots__ = ("distrusted", "download", "failed", "failures", "installing", "offers")

    def __init__(self, members: int) -> None:
        self.offers: list[SnapshotAvailable | None] = [None] * members
        """The last state that each member has offered, while it helps and its member is connected."""
        self.download: Download | None = None
        self.installing: Download | None = None
        """The whole state that the application is taking over."""
        self.failed = [0] * members
        """For each member, the number of its last failure among all failures; 0 for none since it helped last."""
        self.failures = 0
        self.distrusted = [0] * members
        """Up to which position a member's states are not taken: it gave one that its certificate does not describe."""


# -- serving ------------------------------------------------------------------------------------


def on_fetch_snapshot(replica: "Replica", sender: ReplicaIndex, message: FetchSnapshot) -> None:
    """Send a part of a durable state, or offer the one that took its place."""
    if replica.snapshot_at(message.position) is not None:
        replica.emit(SendSnapshotChunk(sender, message.position, message.offset, message.length))
    elif replica.snapshot is not None:
        replica.emit(Send(sender, SnapshotAvailable(*replica.snapshot)))


# -- whose state to fetch -----------------------------------------------------------------------


def on_snapshot_available(replica: "Replica", sender: ReplicaIndex, message: SnapshotAvailable) -> None:
    """Note an offer; begin at once with a member that has not failed, while nothing else is on its way."""
    transfer = replica.state_transfer
    position = message.certificate.position
    if sender == replica.own or position <= transfer.distrusted[sender] or not _helps(replica, position):
        return
    if not 0 < message.size <= MAX_SNAPSHOT_BYTES:
        replica.emit(Report("rejected", "a snapshot of impossible size", sender))
        return
    transfer.offers[sender] = message
    if transfer.installing is not None:
        return
    download = transfer.download
    if download is None:
        if not transfer.failed[sender] and sender in _candidates(replica):
            _begin(replica, sender)
    elif sender == download.source and position > download.certificate.position and not download.received:
        # It does not have any more what it offered earlier. Patience is no longer for that.
        _begin(replica, sender, download.idle)
    arm_sync(replica)


def _helps(replica: "Replica", position: int) -> bool:
    """Say whether the state at a position is further than this replica gets by itself."""
    commits = replica.commits
    return position > commits.executed and (position > commits.position or _is_stuck(replica))


def _is_stuck(replica: "Replica") -> bool:
    """Say whether the next position cannot be executed for lack of a body."""
    return any(not replica.payloads.holds(ref) for ref in replica.commits.next_refs or ())


def _largest_believed(replica: "Replica") -> int:
    """Return the size up to which an offer is believed: with f + 1 of them, one is an honest member's."""
    weak = replica.settings.membership.quorum.weak
    sizes = sorted(offer.size for offer in replica.state_transfer.offers if offer is not None)
    return 2 * max(sizes[:weak]) if 1 < weak <= len(sizes) else MAX_SNAPSHOT_BYTES


def _candidates(replica: "Replica") -> list[ReplicaIndex]:
    """List whose offers may be taken, whoever failed longest ago first, then whoever has the least to send."""
    transfer, largest = replica.state_transfer, _largest_believed(replica)
    ranked = [
        (transfer.failed[member], offer.size, member)
        for member, offer in enumerate(transfer.offers)
        if offer is not None and offer.size <= largest
    ]
    return [member for _, _, member in sorted(ranked)]


# -- the download -------------------------------------------------------------------------------


def _begin(replica: "Replica", source: ReplicaIndex, idle: int | None = None) -> None:
    """Ask for the first part of what a member offers; `idle` are the looks that it has wasted, where it goes on."""
    offer = replica.state_transfer.offers[source]
    if offer is None:
        raise ValueError(f"member {source} has offered no state")
    download = replica.state_transfer.download = Download(offer.certificate, offer.size, source)
    if idle is not None:
        download.idle, download.seen = idle, 0
    position = offer.certificate.position
    replica.emit(Report("behind", f"fetching the state at position {position} ({offer.size} bytes)", source))
    _ask_for_part(replica, download)


def _ask_for_part(replica: "Replica", download: Download) -> None:
    position, length = download.certificate.position, _part_bytes(replica, download)
    replica.emit(Send(download.source, FetchSnapshot(position, download.received, length)))


def _part_bytes(replica: "Replica", download: Download) -> int:
    """Return how long the next part of a state must be."""
    longest = min(replica.settings.tuning.snapshot_chunk_bytes, MAX_PART_BYTES)
    return min(longest, download.size - download.received)


def _is_whole(replica: "Replica", download: Download, part: SnapshotChunk) -> bool:
    """Say whether a part is as long as was asked for."""
    return len(part.data) == _part_bytes(replica, download)


def look_after(replica: "Replica") -> bool:
    """Judge the download, and begin another one where there is a better source; say whether any is wanted still."""
    transfer = replica.state_transfer
    for member, offer in enumerate(transfer.offers):
        if offer is not None and not _helps(replica, offer.certificate.position):
            transfer.offers[member] = None
    download = transfer.download
    if download is not None and download.certificate.position <= replica.commits.executed:
        download = transfer.download = None
    if download is not None and not _goes_on(replica, download):
        give_up(replica)
    candidates = _candidates(replica)
    if transfer.download is None and candidates:
        _begin(replica, candidates[0])
    return transfer.download is not None or bool(candidates)


def _goes_on(replica: "Replica", download: Download) -> bool:
    """Say whether a download has moved since the last look, or nobody else is to have a turn before it."""
    if download.received > download.seen:
        download.seen, download.idle = download.received, 0
    else:
        download.idle += 1
        _ask_for_part(replica, download)
    if download.size > _largest_believed(replica):
        return False
    failed = replica.state_transfer.failed
    others = [failed[member] for member in _candidates(replica) if _differs(replica, download, member)]
    if not others or not download.idle:
        return True
    return min(others) > failed[download.source] and download.idle < PATIENCE


def _differs(replica: "Replica", download: Download, member: ReplicaIndex) -> bool:
    """Say whether what a member offers may take the place of a download."""
    offer = replica.state_transfer.offers[member]
    ahead = offer.certificate.position - download.certificate.position if offer is not None else -1
    return ahead > 0 if member == download.source else ahead >= 0


def give_up(replica: "Replica") -> None:
    """Stop the download; its source is asked again when all others who offer a state have had their turn."""
    transfer = replica.state_transfer
    download, transfer.download = transfer.download, None
    if download is not None:
        _note_failure(transfer, download.source)


def _note_failure(transfer: StateTransfer, source: ReplicaIndex) -> None:
    transfer.failures += 1
    transfer.failed[source] = transfer.failures


def on_source_gone(replica: "Replica", peer: ReplicaIndex) -> None:
    """Forget what a member has offered whose channel is gone."""
    transfer = replica.state_transfer
    transfer.offers[peer] = None
    if transfer.download is not None and transfer.download.source == peer:
        give_up(replica)
        arm(replica, SYNC_TIMER, replica.settings.tuning.sync_grace_ms)


def on_snapshot_chunk(replica: "Replica", sender: ReplicaIndex, message: SnapshotChunk) -> None:
    """Take the next part of the state; a source that sends more or less than was asked for is given up."""
    transfer = replica.state_transfer
    download = transfer.download
    if download is None or sender != download.source or message.position != download.certificate.position:
        return
    if message.size != download.size or message.offset != download.received:
        return
    if not _is_whole(replica, download, message):
        replica.emit(Report("rejected", WRONG_PART, sender))
        give_up(replica)
        return
    download.parts.append(message.data)
    download.received += len(message.data)
    if download.received < download.size:
        _ask_for_part(replica, download)
        return
    transfer.download, transfer.installing = None, download
    replica.emit(InstallSnapshot(download.certificate, tuple(download.parts)))
    download.parts.clear()


# -- taking it over -----------------------------------------------------------------------------


def on_snapshot_installed(replica: "Replica", event: SnapshotInstalled) -> None:
    """Go on from a transferred state, or look for another source."""
    transfer = replica.state_transfer
    download, transfer.installing = transfer.installing, None
    replica.catch_up.asked_at = -1
    certificate = event.certificate
    if event.problem:
        if download is not None and certificate.position > replica.commits.executed:
            transfer.distrusted[download.source] = certificate.position
            transfer.offers[download.source] = None
            _note_failure(transfer, download.source)
        replica.emit(Report("rejected", f"a snapshot: {event.problem}"))
        arm(replica, SYNC_TIMER, replica.settings.tuning.sync_grace_ms)
        return
    if download is not None:
        transfer.failed[download.source] = 0
    checkpoint = certificate.checkpoint
    if replica.commits.roots_at(certificate.position) not in (None, (checkpoint.height, checkpoint.log_root)):
        replica.halt(f"the log up to position {certificate.position} differs from the one that a quorum certified")
        return
    if certificate.position > replica.commits.position:
        replica.commits.reset(checkpoint)
    else:
        # Meanwhile the engine decided as far by itself; only the execution jumps ahead.
        replica.commits.skip_to(certificate.position)
    replica.checkpoints.now_stable(certificate)
    replica.guard.stable(certificate.position)
    replica.append(RecordKind.STABLE, certificate, barrier=False)
    # States above were asked for while this one was taken over; one of them may be certified next.
    replica.newest_state_through(certificate.position)
    replica.commits.snapshot_kept()
    replica.note_snapshot(certificate, event.size)
    replica.tell_engine(Synced(replica.now, replica.commits.position, (), None))
    replica.tell_engine(Stable(replica.now, certificate))
    replica.emit(Report("caught up", f"state at position {certificate.position} taken over", certificate))
    replica.trim(certificate.position)
    replica.execute_ready()
    arm_progress(replica)
    arm(replica, SYNC_TIMER, 0)
