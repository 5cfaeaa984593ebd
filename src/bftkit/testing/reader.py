"""Reads of a simulated client: through the log, or at one member where the engine knows how much is decided."""

from typing import TYPE_CHECKING, Any, cast

from bftkit.core.ids import ReplicaIndex, canonical
from bftkit.replica.client_messages import AnyReply, Busy, ReadReply
from bftkit.replica.read_queue import one_answer_is_enough
from bftkit.replica.sessions import NONCE_BYTES
from bftkit.runtime.admin_messages import AdminAnswer, AdminAsk
from bftkit.runtime.client_session import Transmit
from bftkit.runtime.ordered_reads import OrderedRead, OrderedReads
from bftkit.testing.checkers import Violation
from bftkit.testing.machine import tagged
from bftkit.testing.signing import SimulatedKey
from bftkit.wire.auth import SigningKey

if TYPE_CHECKING:
    from bftkit.testing.world import World

RETRY_MS = 400
"""Pause before a read at one member goes to somebody else."""

TICK_US = 100_000
"""How often is looked whether a read through the log goes out again, while there are any."""

MOST_OPEN = 2
"""Reads that a client has under way at once."""

_NUMBER_BITS = 64
"""In a nonce, the number of the read stands behind that of the client: the checkers can tell all reads apart."""

_COUNT_BITS = 32
"""In the tag of a question likewise."""


class _OpenRead:
    """A read that is not answered."""

    __slots__ = ("floor", "ordered", "request")

    def __init__(self, request: bytes, floor: int) -> None:
        self.request = request
        self.floor = floor
        """Highest height that anybody had been told of when it was called."""
        self.ordered: OrderedRead | None = None
        """Its way through the log, where it goes that way."""


class SimulatedReader:
    """The reads of one client; those through the log are the real client's. What it believes goes to the checkers."""

    def __init__(self, world: "World", number: int, public_key: bytes) -> None:
        self._world = world
        self._number = number
        self._public_key = public_key
        self._alone = one_answer_is_enough(world.settings.spec)
        self._members = len(world.settings.membership)
        key = cast(SigningKey, SimulatedKey(world.signatures, public_key))
        quorum = world.settings.membership.quorum
        self._ordered = OrderedReads(key, world.client_domain, quorum, contact=number % self._members)
        for member in range(self._members):
            self._ordered.on_connected(member, 0)
        self._random = world.choices.random("queries", number)
        self._ticking = False
        self._open: dict[int, _OpenRead] = {}
        self._count = 0

    @property
    def idle(self) -> bool:
        """Say whether every read was answered."""
        return not self._open

    @property
    def _now_ms(self) -> int:
        return self._world.events.now_us // 1_000

    def read(self) -> None:
        """Read once more, unless enough is under way."""
        if len(self._open) >= MOST_OPEN:
            return
        self._count += 1
        number = self._count
        read = self._open[number] = _OpenRead(self._question(number), self._world.checkers.told_height)
        if self._alone:
            self._ask(number, read)
        else:
            self._start(number, read)

    def _question(self, number: int) -> bytes:
        """Return a question unlike all others: what the state machine is asked, behind a tag."""
        make = self._world.make_query
        return tagged(self._number << _COUNT_BITS | number, make(self._random) if make is not None else b"")

    # -- through the log --------------------------------------------------------------------------

    def _start(self, number: int, read: _OpenRead) -> None:
        nonce = (self._number << _NUMBER_BITS | number).to_bytes(NONCE_BYTES, "big")
        read.ordered, sends = self._ordered.start(nonce, read.request, lambda: self._concluded(number), self._now_ms)
        self._send(sends)
        if not self._ticking:
            self._ticking = True
            self._world.events.due("reader", self._number, TICK_US, self._tick)

    def _send(self, sends: list[Transmit]) -> None:
        for send in sends:
            for member in send.replicas:
                self._world.request(member, send.data, self)

    def _tick(self) -> None:
        self._send(self._ordered.on_tick(self._now_ms))
        self._ticking = self._ordered.pending
        if self._ticking:
            self._world.events.due("reader", self._number, TICK_US, self._tick)

    def receive(self, member: ReplicaIndex, reply: AnyReply) -> None:
        """Take a member's answer to a read that went through the log, or its word that it did not take one."""
        if isinstance(reply, ReadReply):
            self._ordered.on_reply(member, reply, canonical(reply))
        elif isinstance(reply, Busy):
            self._send(self._ordered.on_busy(member, reply, self._now_ms))

    def _concluded(self, number: int) -> None:
        ordered = self._open[number].ordered
        reply = None if ordered is None else ordered.outcome
        if not isinstance(reply, ReadReply):
            raise Violation(f"a read was not answered: {reply}")
        self._finish(number, reply.answer, reply.height, reply.problem)

    # -- at one member ----------------------------------------------------------------------------

    def _ask(self, number: int, read: _OpenRead) -> None:
        """Ask one member, and another after a while, until one answers."""
        if self._open.get(number) is not read:
            return
        client = self._world.choices.client
        contact = client.below("reader's contact", self._number, self._members)
        self._world.read(contact, self._public_key, canonical(AdminAsk(number, "read", read.request)))
        delay_ms = RETRY_MS + client.below("reader's retry", self._number, RETRY_MS)
        self._world.events.due("reader", self._number, delay_ms * 1_000, self._ask, number, read)

    def answered(self, answer: AdminAnswer) -> None:
        """Take the answer of the one member that was asked; one that cannot answer now is asked again, or another."""
        if answer.id in self._open and not answer.retry:
            problem = "" if answer.ok else answer.body.decode()
            self._finish(answer.id, answer.body, answer.height, problem)

    # -- both -------------------------------------------------------------------------------------

    def _finish(self, number: int, answer: bytes, height: int, problem: Any) -> None:
        if problem:
            raise Violation(f"a read was not answered: {problem}")
        read = self._open.pop(number)
        self._world.counters["reads"] += 1
        self._world.trace("q", self._number, number, height)
        self._world.checkers.read(read.request, answer, height, read.floor)
