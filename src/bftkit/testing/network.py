"""The simulated network: links with delays of their own, sessions, and everything that can happen to a message."""

from collections import Counter as Tally
from collections.abc import Callable, Sequence
from typing import Any

from bftkit.core.batch import BatchBody
from bftkit.replica.messages import SnapshotChunk
from bftkit.testing.choices import Stream
from bftkit.testing.clock import EventHeap
from bftkit.testing.journal import Journal
from bftkit.testing.profile import Profile

SPIKE_FACTOR = 100
"""How much longer a message of a spike takes."""

FINE = 1_024
"""In how many steps delays are drawn."""

ARCHIVED = 1 << 16
"""Messages that may come once more: all that a usual run sends; beyond that, later ones in the place of others."""

LARGE_BYTES = 512
"""Frames that are longer count as bulk."""

RESENT = 0.25
"""Share of the old messages that a liar, where there is one, sends under its own name."""


class SpoiltFrame(bytes):
    """A frame that was changed on its way: whoever gets it must refuse it, and may do no worse."""


def is_bulk(message: Any) -> bool:
    """Say whether a message is bulk, which outboxes shed first: bodies and states are, however small they are here."""
    return len(message) > LARGE_BYTES if isinstance(message, bytes) else isinstance(message, BatchBody | SnapshotChunk)


class Network:
    """Channels between instances. A pair has at most one session; what was sent in one dies with it.

    `deliver(sender, receiver, message)` hands a message over, `changed(receiver, peer, up)` tells an
    instance that its channel to a peer has opened or is gone. `hits` counts what went wrong, by class.
    """

    def __init__(
        self,
        size: int,
        profile: Profile,
        stream: Stream,
        events: EventHeap,
        deliver: Callable[[int, int, Any], None],
        changed: Callable[[int, int, bool], None],
        hits: Tally[str],
        journal: Journal | None = None,
    ) -> None:
        self._size = size
        self._profile = profile
        self._stream = stream
        self._events = events
        self._deliver = deliver
        self._changed = changed
        self._hits = hits
        self._journal = journal
        self._alive = [False] * size
        self._session = [[0] * size for _ in range(size)]
        """Number of the open session of a pair, both ways; 0 while there is none."""
        self._sessions = 0
        links = size * size
        self._cuts = [0] * links
        """How many faults keep a message from going this way."""
        self._clogs = [0] * links
        """How many faults hold messages back that go this way."""
        self._held: dict[int, list[tuple[Any, ...]]] = {}
        self._pace_us = [0] * links
        """How long each message occupies the link, where it is slow."""
        self._sheds = [0] * links
        """How many faults lose bulk that goes this way."""
        least, spread = profile.link_us
        self._least_us = least
        self._spread_us = [1 + spread * stream.below("share", link, FINE) // FINE for link in range(links)]
        self._busy_until = [0] * links
        self._archive: list[tuple[int, int, Any]] = []
        """What was sent: sender, receiver and message."""
        self.liars: Sequence[int] = ()
        """Instances that may send again, as their own, what others have sent."""
        self.sent = 0
        self.lost = 0
        """Messages that did not arrive, for whatever reason."""

    # -- messages ---------------------------------------------------------------------------------

    def send(self, sender: int, receiver: int, message: Any) -> None:
        """Put a message on its way; it may be lost, late or doubled."""
        self.sent += 1
        session = self._session[sender][receiver]
        link = sender * self._size + receiver
        if not session or self._cuts[link]:
            self._lose(sender, receiver, message)
            return
        profile, stream = self._profile, self._stream
        if self._sheds[link] and is_bulk(message):
            self._hits["lost_bulk"] += 1
            self._lose(sender, receiver, message)
            return
        if profile.loss and stream.chance("loss", link, profile.loss):
            self._hits["loss"] += 1
            self._lose(sender, receiver, message)
            return
        self._transmit(link, session, sender, receiver, message)
        if profile.duplication and stream.chance("duplication", link, profile.duplication):
            self._hits["duplication"] += 1
            self._transmit(link, session, sender, receiver, message)
        if profile.replay:
            self._replay(link, sender, receiver, message)

    def _lose(self, sender: int, receiver: int, message: Any) -> None:
        self.lost += 1
        if self._journal is not None:
            self._journal.lost(self._events.now_us, sender, receiver, message)

    def _replay(self, link: int, sender: int, receiver: int, message: Any) -> None:
        """Let something that was sent long ago, by anybody to anybody, come again, and keep what is sent now."""
        archive = self._archive
        if archive and self._stream.chance("replay", link, self._profile.replay):
            self._send_again(link, *archive[self._stream.below("replayed", link, len(archive))])
        if len(archive) < ARCHIVED:
            archive.append((sender, receiver, message))
        else:
            archive[self.sent % ARCHIVED] = (sender, receiver, message)

    def _send_again(self, link: int, sender: int, receiver: int, message: Any) -> None:
        """Send an old message over its own link, or let a liar send it as its own, to whoever got it or to another."""
        kind = "replay"
        if self.liars and self._stream.chance("resent", link, RESENT):
            kind = "replay by a liar"
            sender = self.liars[self._stream.below("resender", link, len(self.liars))]
            receiver = (receiver + self._stream.below("redirected", link, self._size)) % self._size
        session = self._session[sender][receiver]
        if session and not self._cuts[sender * self._size + receiver]:
            self._hits[kind] += 1
            self._transmit(sender * self._size + receiver, session, sender, receiver, message)

    def _transmit(self, link: int, session: int, sender: int, receiver: int, message: Any) -> None:
        arguments = (link, session, sender, receiver, message, self._events.now_us)
        delay = self._least_us + self._spread_us[link] * self._stream.below("delay", link, FINE) // FINE
        if self._profile.spike and self._stream.chance("spike", link, self._profile.spike):
            self._hits["spike"] += 1
            delay *= SPIKE_FACTOR
        pace = self._pace_us[link]
        if self._profile.in_order or pace:
            if pace:
                self._hits["throttles"] += 1
            now = self._events.now_us
            arrival = max(now + delay, self._busy_until[link] + pace)
            self._busy_until[link] = arrival
            delay = arrival - now
        self._events.due("link", link, delay, self._arrive, *arguments)

    def _arrive(self, link: int, session: int, sender: int, receiver: int, message: Any, sent_us: int) -> None:
        if self._session[sender][receiver] != session:
            self._lose(sender, receiver, message)
            return
        if self._clogs[link]:
            self._hits["clogs"] += 1
            self._held.setdefault(link, []).append((link, session, sender, receiver, message, sent_us))
            return
        if self._profile.corruption and type(message) is bytes:
            message = self._corrupted(link, message)
        if self._journal is not None:
            self._journal.message(self._events.now_us, sender, receiver, sent_us, message)
        self._deliver(sender, receiver, message)

    def _corrupted(self, link: int, frame: bytes) -> bytes:
        """Flip a bit of a frame, or cut it short, now and then."""
        if not self._stream.chance("corruption", link, self._profile.corruption):
            return frame
        self._hits["corruption"] += 1
        place = self._stream.below("corrupted", link, len(frame) * 9)
        if place >= len(frame) * 8:
            return SpoiltFrame(frame[: place - len(frame) * 8])
        spoilt = bytearray(frame)
        spoilt[place >> 3] ^= 1 << (place & 7)
        return SpoiltFrame(spoilt)

    # -- sessions ---------------------------------------------------------------------------------

    def start(self, member: int) -> None:
        """Note that an instance runs: its peers connect to it as soon as they can."""
        self._alive[member] = True
        for peer in range(self._size):
            self._connect_later(member, peer)

    def crash(self, member: int) -> None:
        """Note that an instance is gone: its sessions end, and its peers notice."""
        self._alive[member] = False
        for peer in range(self._size):
            self._end_session(member, peer)

    def reset(self, one: int, other: int) -> None:
        """Break the session of a pair; it is opened again as soon as possible."""
        if self._session[one][other]:
            self._hits["resets"] += 1
            self._end_session(one, other)
            self._connect_later(one, other)

    def _connect_later(self, one: int, other: int) -> None:
        if one != other:
            pause_us = 500 + self._stream.below("connect", one * self._size + other, 20_000)
            self._events.after(pause_us, self._connect, one, other)

    def _connect(self, one: int, other: int) -> None:
        if self._session[one][other] or not (self._alive[one] and self._alive[other]):
            return
        if self._cuts[one * self._size + other] or self._cuts[other * self._size + one]:
            return
        self._sessions += 1
        self._session[one][other] = self._session[other][one] = self._sessions
        self._changed(one, other, True)
        if self._session[one][other]:
            self._changed(other, one, True)

    def _end_session(self, one: int, other: int) -> None:
        if self._session[one][other]:
            self._session[one][other] = self._session[other][one] = 0
            for here, there in ((one, other), (other, one)):
                if self._alive[here]:
                    self._changed(here, there, False)

    # -- faults -----------------------------------------------------------------------------------

    def cut(self, sender: int, receiver: int) -> None:
        """Lose everything that one instance sends to another; the session breaks when that is noticed."""
        link = sender * self._size + receiver
        self._cuts[link] += 1
        notice_us = 5_000 + self._stream.below("notice", link, 1_500_000)
        self._events.after(notice_us, self._notice, self._session[sender][receiver], sender, receiver)

    def _notice(self, session: int, sender: int, receiver: int) -> None:
        if session and self._session[sender][receiver] == session and self._cuts[sender * self._size + receiver]:
            self._end_session(sender, receiver)

    def heal(self, sender: int, receiver: int) -> None:
        """Take one `cut` back."""
        link = sender * self._size + receiver
        if self._cuts[link]:
            self._cuts[link] -= 1
            self._connect_later(sender, receiver)

    def clog(self, sender: int, receiver: int) -> None:
        """Hold back everything that arrives over a link, without losing it."""
        self._clogs[sender * self._size + receiver] += 1

    def release(self, sender: int, receiver: int) -> None:
        """Take one `clog` back; what was held arrives at once, in its order."""
        link = sender * self._size + receiver
        if self._clogs[link]:
            self._clogs[link] -= 1
            if not self._clogs[link]:
                for arguments in self._held.pop(link, ()):
                    self._events.after(0, self._arrive, *arguments)

    def pace(self, sender: int, receiver: int, pace_us: int) -> None:
        """Let each message occupy a link for so long; 0 for no time."""
        self._pace_us[sender * self._size + receiver] = pace_us

    def shed(self, sender: int, receiver: int, more: int) -> None:
        """Let one fault more, or less, lose bulk on its way, while everything else passes."""
        link = sender * self._size + receiver
        self._sheds[link] = max(0, self._sheds[link] + more)

    def calm_down(self, profile: Profile) -> None:
        """End all faults, whatever they were, and go on with the delays of a calm profile.

        What is on its way takes no longer than those, and a link keeps its order.
        """
        self._profile = profile
        self._least_us, spread = profile.link_us
        latest = self._events.now_us + self._least_us + spread
        self._events.hasten(self._arrive, self._least_us + spread)
        links = self._size * self._size
        self._cuts = [0] * links
        self._pace_us = [0] * links
        self._spread_us = [spread] * links
        self._busy_until = [min(until, latest) for until in self._busy_until]
        self._clogs = [0] * links
        self._sheds = [0] * links
        for held in [self._held[link] for link in sorted(self._held)]:
            for arguments in held:
                self._events.after(0, self._arrive, *arguments)
        self._held.clear()
        for sender in range(self._size):
            for receiver in range(sender + 1, self._size):
                self._connect_later(sender, receiver)
