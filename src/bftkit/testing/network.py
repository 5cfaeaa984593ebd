"""The simulated network: links with delays of their own, sessions, loss, duplication, cuts and healing."""

from collections.abc import Callable
from random import Random
from typing import Any

from bftkit.core.ids import ReplicaIndex
from bftkit.testing.clock import EventHeap
from bftkit.testing.profile import Profile

SPIKE_FACTOR = 100
"""How much longer a message of a spike takes."""


class Network:
    """Channels between members. A pair has at most one session; what was sent in one dies with it.

    `deliver(sender, receiver, message)` hands a message over, `changed(receiver, peer, up)` tells a
    member that its channel to a peer has opened or is gone.
    """

    def __init__(
        self,
        members: int,
        profile: Profile,
        random: Random,
        events: EventHeap,
        deliver: Callable[[ReplicaIndex, ReplicaIndex, Any], None],
        changed: Callable[[ReplicaIndex, ReplicaIndex, bool], None],
    ) -> None:
        self._members = members
        self._profile = profile
        self._random = random
        self._events = events
        self._deliver = deliver
        self._changed = changed
        self._alive = [False] * members
        self._session = [[0] * members for _ in range(members)]
        """Number of the open session of a pair, both ways; 0 while there is none."""
        self._sessions = 0
        self._cuts = [[0] * members for _ in range(members)]
        """How many faults keep a message from going this way."""
        least, spread = profile.link_us
        self._delay = [[(least, 1 + int(spread * random.random())) for _ in range(members)] for _ in range(members)]
        self._busy_until = [[0] * members for _ in range(members)]
        self.sent = 0
        self.lost = 0

    # -- messages ---------------------------------------------------------------------------------

    def send(self, sender: ReplicaIndex, receiver: ReplicaIndex, message: Any) -> None:
        """Put a message on its way; it may be lost, late or doubled."""
        self.sent += 1
        session = self._session[sender][receiver]
        profile = self._profile
        if not session or self._cuts[sender][receiver] or (profile.loss and self._random.random() < profile.loss):
            self.lost += 1
            return
        self._transmit(session, sender, receiver, message)
        if profile.duplication and self._random.random() < profile.duplication:
            self._transmit(session, sender, receiver, message)

    def _transmit(self, session: int, sender: ReplicaIndex, receiver: ReplicaIndex, message: Any) -> None:
        least, spread = self._delay[sender][receiver]
        delay = least + int(spread * self._random.random())
        if self._profile.spike and self._random.random() < self._profile.spike:
            delay *= SPIKE_FACTOR
        if self._profile.in_order:
            now = self._events.now_us
            arrival = max(now + delay, self._busy_until[sender][receiver])
            self._busy_until[sender][receiver] = arrival
            delay = arrival - now
        self._events.after(delay, self._arrive, session, sender, receiver, message)

    def _arrive(self, session: int, sender: ReplicaIndex, receiver: ReplicaIndex, message: Any) -> None:
        if self._session[sender][receiver] != session:
            self.lost += 1
            return
        self._deliver(sender, receiver, message)

    # -- sessions ---------------------------------------------------------------------------------

    def start(self, member: ReplicaIndex) -> None:
        """Note that a member runs: its peers connect to it as soon as they can."""
        self._alive[member] = True
        for peer in range(self._members):
            self._connect_later(member, peer)

    def crash(self, member: ReplicaIndex) -> None:
        """Note that a member is gone: its sessions end, and its peers notice."""
        self._alive[member] = False
        for peer in range(self._members):
            self._end_session(member, peer)

    def _connect_later(self, one: ReplicaIndex, other: ReplicaIndex) -> None:
        if one != other:
            self._events.after(500 + self._random.randrange(20_000), self._connect, one, other)

    def _connect(self, one: ReplicaIndex, other: ReplicaIndex) -> None:
        if self._session[one][other] or not (self._alive[one] and self._alive[other]):
            return
        if self._cuts[one][other] or self._cuts[other][one]:
            return
        self._sessions += 1
        self._session[one][other] = self._session[other][one] = self._sessions
        self._changed(one, other, True)
        if self._session[one][other]:
            self._changed(other, one, True)

    def _end_session(self, one: ReplicaIndex, other: ReplicaIndex) -> None:
        if self._session[one][other]:
            self._session[one][other] = self._session[other][one] = 0
            for here, there in ((one, other), (other, one)):
                if self._alive[here]:
                    self._changed(here, there, False)

    # -- faults -----------------------------------------------------------------------------------

    def cut(self, sender: ReplicaIndex, receiver: ReplicaIndex) -> None:
        """Lose everything that one member sends to another; the session breaks when that is noticed."""
        self._cuts[sender][receiver] += 1
        notice_us = 5_000 + self._random.randrange(1_500_000)
        self._events.after(notice_us, self._notice, self._session[sender][receiver], sender, receiver)

    def _notice(self, session: int, sender: ReplicaIndex, receiver: ReplicaIndex) -> None:
        if session and self._session[sender][receiver] == session and self._cuts[sender][receiver]:
            self._end_session(sender, receiver)

    def heal(self, sender: ReplicaIndex, receiver: ReplicaIndex) -> None:
        """Take one `cut` back."""
        if self._cuts[sender][receiver]:
            self._cuts[sender][receiver] -= 1
            self._connect_later(sender, receiver)

    def calm_down(self, profile: Profile) -> None:
        """End all faults, whatever they were, and go on with the delays of a calm profile."""
        self._profile = profile
        least, spread = profile.link_us
        for sender in range(self._members):
            for receiver in range(self._members):
                self._cuts[sender][receiver] = 0
                self._delay[sender][receiver] = (least, spread)
                self._busy_until[sender][receiver] = 0
                if sender < receiver:
                    self._connect_later(sender, receiver)
