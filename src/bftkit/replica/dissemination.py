"""Getting bodies to where they are needed: requests into batches, batches to everybody, and what is missing fetched.

A body counts against the quota of whoever brought it: its maker, or the member that offered it. What
a header says of its origin proves nothing, so one member cannot fill the quota of another.

A restart weakens that. The log holds bodies and does not say who brought them, so those that are found there and not
decided count against the origin that their headers name: a liar may have put them on another's account. What it gains
is that bodies which that member sends by itself are refused until those are decided; whatever a proposal names is
fetched in any case, against nobody's quota. Counting them against nobody would let every restart add to what is held.
"""

from typing import TYPE_CHECKING, Any

from bftkit.core.batch import BatchBody, BatchRef, ref_problem
from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Available
from bftkit.core.outputs import Broadcast, Send, SetTimer
from bftkit.replica import catch_up
from bftkit.replica.inputs import BodiesDurable, Submitted
from bftkit.replica.messages import FetchBodies, OfferBodies, SnapshotAvailable
from bftkit.replica.outputs import Append, Loopback, Refuse, Report
from bftkit.replica.records import RecordKind

if TYPE_CHECKING:
    from bftkit.replica.replica import Replica

FETCH_TIMER = "replica/fetch"
"""Ask again for bodies that are missing."""


BEYOND_QUOTA = "a batch beyond its origin's quota"
"""Why a body is not taken whose origin has as many on their way as it may have."""


class Asked:
    """Bodies that the engine has asked for and not got."""

    __slots__ = ("is_fetching", "refs")

    def __init__(self) -> None:
        self.refs: dict[bytes, BatchRef] = {}
        self.is_fetching = False
        """Whether the timer runs."""


# -- requests into batches ----------------------------------------------------------------------


def on_submitted(replica: "Replica", event: Submitted) -> None:
    """Take the requests of clients, or refuse them while too much waits."""
    retry_ms = replica.settings.tuning.progress_ms
    lagging = replica.commits.waiting > replica.settings.tuning.execution_lag
    for submission in event.submissions:
        problem = "overloaded" if lagging else replica.mempool.admit(submission)
        if problem is not None:
            replica.emit(Refuse(submission.token, problem, retry_ms if problem == "overloaded" else 0))


def close_batches(replica: "Replica") -> None:
    """Make batches of what waits, store them, and send them to everybody."""
    # The time tells apart what another life of this replica made at the same place of its log.
    number = (replica.now << 20) + (replica.next_index & 0xFFFFF)
    for body in replica.mempool.close_batches(number):
        store(replica, body, replica.own)
        replica.emit(Broadcast(body, early=True))


# -- bodies that come in ------------------------------------------------------------------------


def on_body(replica: "Replica", sender: ReplicaIndex, body: BatchBody) -> None:
    """Take a body that its maker sends within its quota, or that was asked for."""
    ref = body.ref
    if replica.payloads.is_known(ref.digest):
        return
    if ref_problem(ref, len(replica.settings.membership), replica.settings.limits.max_batch_bytes) is not None:
        replica.emit(Report("rejected", "a batch that no proposal may name", sender))
        return
    wanted = replica.payloads.is_wanted(ref.digest)
    offered_by = replica.payloads.offered_by(ref.digest)
    if wanted and offered_by is None:
        store(replica, body, None)
        return
    # Whoever offered it had room when he was answered; what else he offered meanwhile may have come first.
    for member in (offered_by, sender if sender == ref.origin else None):
        if member is not None and replica.mempool.has_room(member, ref.size):
            store(replica, body, member)
            return
    replica.payloads.give_up(ref.digest)
    if sender == ref.origin:
        replica.emit(Report("rejected", BEYOND_QUOTA, sender))


def store(replica: "Replica", body: BatchBody, charged: ReplicaIndex | None) -> None:
    """Append a body to the log; it counts against a member's quota until it is decided."""
    replica.payloads.store(body, replica.next_index)
    replica.emit(Append(RecordKind.BODY, (body.header, body.blob), barrier=False, ref=body.ref))
    replica.next_index += 1
    replica.emit(Loopback(BodiesDurable(replica.now, (body.ref,))))
    if not replica.payloads.is_decided(body.ref.digest):
        replica.mempool.add(body.ref, charged)


def on_bodies_durable(replica: "Replica", event: BodiesDurable) -> None:
    """Tell the engine what it may vote for or propose now, and execute what waited for it."""
    arrived = replica.payloads.durable(event.refs)
    if not arrived:
        return
    # What was decided meanwhile concerns the engine only where it asked for it.
    asked = [ref.digest for ref in arrived if replica.asked.refs.pop(ref.digest, None) is not None]
    _make_available(
        replica, tuple(ref for ref in arrived if ref.digest in asked or not replica.payloads.is_decided(ref.digest))
    )
    replica.execute_ready()


def _make_available(replica: "Replica", refs: tuple[BatchRef, ...]) -> None:
    """Tell the engine of bodies that are here, and which of them are new."""
    new = tuple(ref for ref in refs if not replica.payloads.is_decided(ref.digest))
    old = tuple(ref for ref in refs if replica.payloads.is_decided(ref.digest))
    if new:
        replica.tell_engine(Available(replica.now, new))
    if old:
        replica.tell_engine(Available(replica.now, old, decided=True))


# -- bodies that are missing --------------------------------------------------------------------


def want(replica: "Replica", refs: tuple[BatchRef, ...], sources: tuple[ReplicaIndex, ...]) -> None:
    """Fetch bodies for the engine; those held already are made available to it at once."""
    here = tuple(ref for ref in refs if replica.payloads.holds(ref))
    for ref in refs:
        # Should it have been decided, it must outlive whatever the engine now needs it for.
        replica.payloads.named_again(ref, replica.commits.position + replica.settings.window)
        if not replica.payloads.holds(ref):
            replica.asked.refs[ref.digest] = ref
    _make_available(replica, here)
    fetch(replica, refs, sources)


def fetch(replica: "Replica", refs: tuple[BatchRef, ...], sources: tuple[ReplicaIndex, ...]) -> None:
    """Ask for bodies that are not here."""
    replica.emit(*replica.payloads.want(refs, sources))
    arm_fetch(replica)


def arm_fetch(replica: "Replica") -> None:
    """See to it that missing bodies are asked for again."""
    if replica.payloads.missing and not replica.asked.is_fetching:
        replica.asked.is_fetching = True
        replica.emit(SetTimer(FETCH_TIMER, replica.settings.tuning.fetch_retry_ms))


def on_fetch_timeout(replica: "Replica") -> None:
    """Ask the next source for what is still missing."""
    replica.asked.is_fetching = False
    replica.emit(*replica.payloads.ask_again(replica.commits.executed))
    arm_fetch(replica)


def forget_given_up(replica: "Replica") -> None:
    """Drop what was asked for and is neither here nor being fetched: nobody has it, and the view moved on."""
    asked = replica.asked.refs
    for digest in [
        digest for digest in asked if not replica.payloads.is_wanted(digest) and not replica.payloads.is_known(digest)
    ]:
        del asked[digest]


def on_fetch_bodies(replica: "Replica", sender: ReplicaIndex, message: FetchBodies) -> None:
    """Send a member the bodies that it asks for."""
    replica.emit(*replica.payloads.answer(sender, message.digests))
    if replica.snapshot is not None and replica.payloads.lacks(message.digests):
        # It may be asking for what is gone here because a snapshot holds its effect.
        replica.emit(Send(sender, SnapshotAvailable(*replica.snapshot)))


def on_offer_bodies(replica: "Replica", sender: ReplicaIndex, message: OfferBodies) -> None:
    """Fetch what a member offers, within the quota of that member, and prove to it what was decided already."""
    decided = [ref for ref in message.refs if replica.payloads.is_decided(ref.digest)]
    _order_again(replica, sender, catch_up.prove_decided(replica, sender, decided))
    unknown = (
        ref
        for ref in message.refs
        if not replica.payloads.is_decided(ref.digest) and not replica.payloads.is_known(ref.digest)
    )
    room = tuple(ref for ref in unknown if replica.mempool.has_room(sender, ref.size))
    if room:
        replica.emit(*replica.payloads.want_offered(room, sender))
        arm_fetch(replica)


def _order_again(replica: "Replica", sender: ReplicaIndex, refs: list[BatchRef]) -> None:
    """Have batches ordered once more that were decided too long ago to prove it: nothing executes twice."""
    held: list[BatchRef] = []
    for ref in refs:
        if replica.payloads.holds(ref) and replica.mempool.has_room(sender, ref.size):
            replica.payloads.undecided(ref)
            replica.mempool.add(ref, sender)
            held.append(ref)
    if held:
        replica.tell_engine(Available(replica.now, tuple(held)))


def handlers(replica: "Replica") -> dict[type[Any], Any]:
    """Return the handler of each message that belongs here."""
    return {
        BatchBody: lambda sender, message: on_body(replica, sender, message),
        FetchBodies: lambda sender, message: on_fetch_bodies(replica, sender, message),
        OfferBodies: lambda sender, message: on_offer_bodies(replica, sender, message),
    }
