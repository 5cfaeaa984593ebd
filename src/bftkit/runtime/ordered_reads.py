"""Reads through the log, as a client sees them, sans-I/O: whom they go to, when again, and which answer counts.

A read needs no session: executed twice it does no harm. It is signed once and sent again as it is, to one replica
first and to all when that one keeps it to itself; the answer is what `Quorum.weak` replicas say in equal bytes.
"""

from collections.abc import Callable

import msgspec

from bftkit.core.ids import canonical
from bftkit.core.quorum import Quorum
from bftkit.replica.client_messages import Busy, ReadReply, ReadRequest, read_statement
from bftkit.runtime.client_session import Transmit
from bftkit.wire.auth import SigningKey

RETRY_MS = 500
"""Wait before a read without an answer goes to all replicas; doubled each time."""

LONGEST_RETRY_MS = 4_000
"""Longest such wait."""

MOST_READS = 4_096
"""Reads of one client that may be open."""


class OrderedRead(msgspec.Struct, eq=False):
    """One read that is on its way."""

    nonce: bytes
    data: bytes
    """The encoded, signed request."""
    done: Callable[[], None]
    """Called once, when the outcome is there."""
    outcome: ReadReply | Busy | None = None
    """What enough replicas have answered: the reply, or a refusal for good."""
    answers: dict[int, bytes] = {}
    """Newest answer of each replica, encoded."""
    refusals: dict[int, Busy] = {}
    """Replicas that did not take it, since it was last sent to them."""
    asked: set[int] = set()
    """Replicas that have it and have not refused it."""
    retry_at: int = 0
    retry_ms: int = RETRY_MS


class OrderedReads:
    """The reads of one client that are on their way."""

    def __init__(self, key: SigningKey, domain: bytes, quorum: Quorum, *, contact: int = 0) -> None:
        self._key = key
        self._domain = domain
        self._quorum = quorum
        self._contact = contact % quorum.members
        self._connected: set[int] = set()
        self._open: dict[bytes, OrderedRead] = {}

    @property
    def pending(self) -> bool:
        """Say whether anything waits for time to pass."""
        return bool(self._open)

    @property
    def is_full(self) -> bool:
        """Say whether no more reads may be started."""
        return len(self._open) >= MOST_READS

    def start(
        self, nonce: bytes, request: bytes, done: Callable[[], None], now: int
    ) -> tuple[OrderedRead, list[Transmit]]:
        """Sign a read under a nonce that was never used, and say where it goes."""
        public_key = self._key.public_key
        signature = self._key.sign(read_statement(self._domain, public_key, nonce, request))
        read = OrderedRead(nonce, canonical(ReadRequest(public_key, nonce, request, signature)), done)
        self._open[nonce] = read
        return read, self._send(read, self._next_contact(read), now)

    def drop(self, read: OrderedRead) -> None:
        """Forget a read: it is answered, or nobody waits for it any more."""
        self._open.pop(read.nonce, None)

    def close(self) -> None:
        """Tell everybody who waits that nothing more will come."""
        for read in list(self._open.values()):
            self._conclude(read, None)

    # -- sending ----------------------------------------------------------------------------------

    def _send(self, read: OrderedRead, replicas: tuple[int, ...], now: int) -> list[Transmit]:
        read.retry_at = now + read.retry_ms
        for replica in replicas:
            read.refusals.pop(replica, None)
            read.asked.add(replica)
        return [Transmit(read.data, replicas)] if replicas else []

    def _next_contact(self, read: OrderedRead) -> tuple[int, ...]:
        """Return the replica to turn to, if any: the usual one, or the next that is there and has not refused."""
        members = self._quorum.members
        for replica in ((self._contact + step) % members for step in range(members)):
            if replica in self._connected and replica not in read.refusals and replica not in read.asked:
                return (replica,)
        return ()

    def on_connected(self, replica: int, now: int) -> list[Transmit]:
        """Note that a replica can be reached; what reached nobody goes there."""
        self._connected.add(replica)
        unsent = [read for read in self._open.values() if not read.asked and not read.refusals]
        return [send for read in unsent for send in self._send(read, (replica,), now)]

    def on_disconnected(self, replica: int, now: int) -> list[Transmit]:
        """Note that a replica cannot be reached; what only it had goes to another."""
        self._connected.discard(replica)
        sends: list[Transmit] = []
        for read in self._open.values():
            if replica in read.asked:
                read.asked.discard(replica)
                if not read.asked:
                    sends += self._send(read, self._next_contact(read), now)
        return sends

    def on_tick(self, now: int) -> list[Transmit]:
        """Send again what has waited long enough, to all replicas; call it every few milliseconds."""
        due = [read for read in self._open.values() if read.retry_at <= now and self._connected]
        if due:
            # The contact may be the one who keeps requests to itself.
            self._contact = (self._contact + 1) % self._quorum.members
        sends: list[Transmit] = []
        for read in due:
            read.refusals.clear()
            read.retry_ms = min(2 * read.retry_ms, LONGEST_RETRY_MS)
            sends += self._send(read, tuple(sorted(self._connected)), now)
        return sends

    # -- answers ----------------------------------------------------------------------------------

    def on_reply(self, replica: int, reply: ReadReply, payload: bytes | memoryview) -> None:
        """Count one replica's answer; `payload` is its encoded form, which equal answers share."""
        read = self._open.get(reply.nonce)
        if read is not None and self._agreed(read, replica, payload):
            self._conclude(read, reply)

    def _agreed(self, read: OrderedRead, replica: int, payload: bytes | memoryview) -> bool:
        """Note an answer; say whether enough replicas gave the same. A replica's newer answer replaces its older.

        A read that was sent to several replicas may be executed at several heights, and all of them answer for each.
        """
        read.answers[replica] = bytes(payload)
        return sum(answer == payload for answer in read.answers.values()) >= self._quorum.weak

    def on_busy(self, replica: int, busy: Busy, now: int) -> list[Transmit]:
        """Take a replica's word that it did not take a read: another may, or the same one later."""
        read = self._open.get(busy.nonce)
        if read is None:
            return []
        read.refusals[replica] = busy
        read.asked.discard(replica)
        final = [known for known in read.refusals.values() if not known.retry_after_ms]
        if not busy.retry_after_ms and sum(known.reason == busy.reason for known in final) >= self._quorum.weak:
            self._conclude(read, busy)
            return []
        if read.asked:
            return []
        contact = self._next_contact(read)
        sends = self._send(read, contact, now)
        if not contact:
            read.retry_at = now + max(1, *(known.retry_after_ms for known in read.refusals.values()))
        return sends

    def _conclude(self, read: OrderedRead, outcome: ReadReply | Busy | None) -> None:
        self.drop(read)
        read.outcome = outcome
        read.done()
