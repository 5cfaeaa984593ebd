"""Members that lie: what one of them makes of each message that it would send to somebody.

A liar runs the same code as everybody else, and its messages pass through a *behaviour* on their way out. What it
makes up is signed with its own key; what others have signed it cannot change without being found out. Behaviours know
no engine: messages are told apart by what they carry.
"""

from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import msgspec

from bftkit.core.batch import BatchBody
from bftkit.core.engine import EngineSpec
from bftkit.core.ids import ReplicaIndex
from bftkit.core.statement import SignedMessage
from bftkit.replica.messages import (
    AnyReplicaMessage,
    CheckpointVote,
    FetchBodies,
    FetchCommits,
    FetchSnapshot,
    SnapshotChunk,
)
from bftkit.testing import unasked_lies as unasked
from bftkit.testing.lying_answers import cut_answers, drip_states, feed_enormous_states
from bftkit.testing.message_mutation import LARGE, leaves, mutations, with_value, without_a_signer
from bftkit.testing.message_sorts import proposed_batches, sort_of
from bftkit.testing.relabelled_lies import relabel
from bftkit.testing.twins_scenarios import PROPOSALS, VIEW_CHANGES, VOTES

Said = list[tuple[ReplicaIndex, Any]]
"""Messages, and whom they go to."""

Behaviour = Callable[[ReplicaIndex, Any], Said]
"""Takes a receiver and the message for it, unsigned; returns what is sent instead."""

HELD = 24
"""Messages that a liar holds back at most; then the oldest one goes."""

DEEPEST_NUMBER = 2
"""Numbers further inside a message belong to batches and certificates."""

FLOOD = 6
"""How many messages a flooding liar makes of one."""

PATIENCE = 3
"""How often a message must be repeated until a reluctant liar says it."""

MOOD = 20
"""After so many messages a wavering liar takes to another behaviour."""

REMEMBERED = 4
"""Batches whose bodies a liar asks for again and again."""

_REPLICA_TYPES = frozenset(AnyReplicaMessage.__args__)
_QUESTIONS = (FetchBodies, FetchCommits, FetchSnapshot)


def kind_of(message: Any) -> str:
    """Say what sort of message one is, for any engine.

    "proposal", "vote" and "view change" are an engine's signed messages, told apart by their names; "talk" is what an
    engine does not sign.
    """
    if isinstance(message, BatchBody):
        return "body"
    if isinstance(message, CheckpointVote):
        return "checkpoint"
    if type(message) in _REPLICA_TYPES:
        return "question" if isinstance(message, _QUESTIONS) else "answer"
    if not isinstance(message, SignedMessage):
        return "talk"
    return _SORTS[sort_of(type(message))]


_SORTS = {PROPOSALS: "proposal", VOTES: "vote", VIEW_CHANGES: "view change"}


class Liar:
    """What a lying member remembers, and the ways in which it may treat a message."""

    def __init__(self, spec: EngineSpec, own: ReplicaIndex, members: int, random: Random) -> None:
        self.spec = spec
        self.own = own
        self.others = [index for index in range(members) if index != own]
        self.random = random
        order = random.sample(self.others, len(self.others))
        self.half = frozenset(order[: (len(order) + 1) // 2])
        """Who hears another story."""
        self.one = order[0]
        """Who is treated in a way of its own."""
        self.victim = random.randrange(members)
        """Whose batches are not proposed."""
        self.held: list[tuple[ReplicaIndex, Any]] = []
        self.before: dict[type, Any] = {}
        """The last message of each type but the one at hand."""
        self.last: dict[type, Any] = {}
        self.old: dict[type, Any] = {}
        """The first message of each type."""
        self.variants: dict[Any, Any] = {}
        self.retold: dict[bytes, bytes] = {}
        """For contents of proposals, those that half of the members hear of in their place."""
        self.times: dict[tuple[ReplicaIndex, Any], int] = {}
        """How often each message was to be said to each receiver."""
        self.heard: deque[bytes] = deque(maxlen=REMEMBERED)
        """Digests of batches that were proposed."""
        self.made_up: dict[bytes, list[BatchBody]] = {}
        """For digests of batches, what was made up besides."""
        self.flooded: set[bytes] = set()
        """Digests of batches that were made of others."""
        self.fed: dict[ReplicaIndex, SnapshotChunk] = {}
        """For each member that fetches a state, the part that it gets next."""
        self.mood = ""
        self.messages = 0

    def note(self, message: Any) -> None:
        """Remember a message before it is treated."""
        kind = type(message)
        self.old.setdefault(kind, message)
        if self.last.get(kind) != message:
            if kind in self.last:
                self.before[kind] = self.last[kind]
            self.last[kind] = message

    # -- not saying it ------------------------------------------------------------------------------

    def drop(self, to: ReplicaIndex, message: Any) -> Said:
        """Say nothing."""
        return []

    def drop_for_half(self, to: ReplicaIndex, message: Any) -> Said:
        """Say nothing to some."""
        return [] if to in self.half else [(to, message)]

    def drop_but_for_one(self, to: ReplicaIndex, message: Any) -> Said:
        """Say it to one member alone."""
        return [(to, message)] if to == self.one else []

    def drop_often(self, to: ReplicaIndex, message: Any) -> Said:
        """Say it now and then."""
        return [(to, message)] if self.random.random() < 0.3 else []

    def delay(self, to: ReplicaIndex, message: Any) -> Said:
        """Hold it back until many others wait behind it."""
        self.held.append((to, message))
        return [self.held.pop(0)] if len(self.held) > HELD else []

    def drip(self, to: ReplicaIndex, message: Any) -> Said:
        """Hold it back, and let one of those held go now and then."""
        self.held.append((to, message))
        return [self.held.pop(0)] if len(self.held) > HELD or self.random.random() < 0.2 else []

    def reverse(self, to: ReplicaIndex, message: Any) -> Said:
        """Hold some back, and say them the last one first."""
        self.held.append((to, message))
        if len(self.held) < FLOOD:
            return []
        said, self.held = self.held[::-1], []
        return said

    def say_late(self, to: ReplicaIndex, message: Any) -> Said:
        """Say only what was to be said several times: about as late as others bear."""
        return [(to, message)] if self.count(to, message) >= PATIENCE else []

    def count(self, to: ReplicaIndex, message: Any) -> int:
        """Count how often a message was to be said to somebody, this time included."""
        times = self.times[to, message] = self.times.get((to, message), 0) + 1
        return times

    # -- saying it wrongly --------------------------------------------------------------------------

    def variant(self, message: Any) -> Any:
        """Return another message for the same slot, always the same one for the same message."""
        known = self.variants.get(message) if not isinstance(message, BatchBody) else None
        if known is None:
            known = self._make_variant(message)
            if not isinstance(message, BatchBody):
                self.variants[message] = known
        return known

    def _make_variant(self, message: Any) -> Any:
        before = self.before.get(type(message))
        field, _ = proposed_batches(message)
        if field and before is not None and proposed_batches(before)[1]:
            return with_value(message, field, proposed_batches(before)[1])
        for path, value in leaves(message):
            if isinstance(value, bytes) and path[-1] != "signature":
                return with_value(message, path, bytes([value[0] ^ 0xFF]) + value[1:] if value else b"\1")
        choices = mutations(message, before)
        return self.random.choice(choices)() if choices else message

    def equivocate(self, to: ReplicaIndex, message: Any) -> Said:
        """Tell half of the members another story."""
        return [(to, self.variant(message) if to in self.half else message)]

    def contradict(self, to: ReplicaIndex, message: Any) -> Said:
        """Tell one member both stories."""
        return [(to, message), (to, self.variant(message))] if to == self.one else [(to, message)]

    def deceive_one(self, to: ReplicaIndex, message: Any) -> Said:
        """Tell one member another story."""
        return [(to, self.variant(message) if to == self.one else message)]

    def fork(self, to: ReplicaIndex, message: Any) -> Said:
        """Tell half of the members another story, and keep to it: whatever follows fits what they have heard."""
        return [(to, self._retell(message) if to in self.half else message)]

    def _retell(self, message: Any) -> Any:
        if proposed_batches(message)[1]:
            if type(message) not in self.before:
                self.variants[message] = message  # batches that nobody holds would only hold it up
            other = self.variant(message)
            self.retold[message.statement().content] = other.statement().content
            return other
        for path, value in list(leaves(message)):
            if isinstance(value, bytes) and value in self.retold:
                message = with_value(message, path, self.retold[value])
        return message

    def fork_and_withhold(self, to: ReplicaIndex, message: Any) -> Said:
        """Tell two stories, and give nobody who hears the second one a body."""
        return self.drop_for_half(to, message) if isinstance(message, BatchBody) else self.fork(to, message)

    def repeat_old(self, to: ReplicaIndex, message: Any) -> Said:
        """Say again what was said long ago, in its place."""
        return [(to, self.old[type(message)])]

    def add_old(self, to: ReplicaIndex, message: Any) -> Said:
        """Say again what was said before, besides."""
        return [(to, message), (to, self.before.get(type(message), message)), (to, self.old[type(message)])]

    def corrupt(self, to: ReplicaIndex, message: Any) -> Said:
        """Change one thing about it."""
        choices = mutations(message, self.before.get(type(message)))
        return [(to, self.random.choice(choices)() if choices else message)]

    def corrupt_some(self, to: ReplicaIndex, message: Any) -> Said:
        """Change one thing about it, now and then."""
        return self.corrupt(to, message) if self.random.random() < 0.15 else [(to, message)]

    def sign_wrongly(self, to: ReplicaIndex, message: Any) -> Said:
        """Put nonsense in place of the signature."""
        return [(to, msgspec.structs.replace(message, signature=self.random.randbytes(64)))]

    def _shifted(self, message: Any, change: Callable[[int], int]) -> Any:
        for path, value in list(leaves(message)):
            if isinstance(value, int) and not isinstance(value, bool) and len(path) <= DEEPEST_NUMBER:
                message = with_value(message, path, change(value))
        return message

    def boast(self, to: ReplicaIndex, message: Any) -> Said:
        """Add a lot to every number."""
        return [(to, self._shifted(message, lambda value: value + 1_000))]

    def exaggerate(self, to: ReplicaIndex, message: Any) -> Said:
        """Say numbers that nobody could reach."""
        return [(to, self._shifted(message, lambda value: value + LARGE))]

    def belittle(self, to: ReplicaIndex, message: Any) -> Said:
        """Say that everything is at its beginning."""
        return [(to, self._shifted(message, lambda value: min(value, 1)))]

    def flood(self, to: ReplicaIndex, message: Any) -> Said:
        """Say it for many views and positions to come as well."""
        future = [
            (to, self._shifted(message, lambda value, step=step: value + step))  # type: ignore[misc]
            for step in range(1, FLOOD)
        ]
        return [(to, message), *future]

    def insist(self, to: ReplicaIndex, message: Any) -> Said:
        """Say it again and again."""
        return [(to, message)] * FLOOD

    def misdirect(self, to: ReplicaIndex, message: Any) -> Said:
        """Say it to somebody else."""
        return [(self.random.choice(self.others), message)]

    # -- lies that need to know the message -----------------------------------------------------------

    def wrong_body(self, to: ReplicaIndex, message: Any) -> Said:
        """Send other bytes under the name of a batch."""
        blob = bytes(message.blob)
        return [(to, BatchBody(message.ref, message.header, blob[:-1] + bytes([blob[-1] ^ 1])))]

    def censor(self, to: ReplicaIndex, message: Any) -> Said:
        """Leave the batches of one member out of every proposal."""
        field, refs = proposed_batches(message)
        kept = tuple(ref for ref in refs if ref.origin != self.victim)
        if kept == refs:
            return [(to, message)]
        return [(to, with_value(message, field, kept))] if kept else []

    def wrong_roots(self, to: ReplicaIndex, message: Any) -> Said:
        """Vote for a state that nobody has."""
        false = msgspec.structs.replace(message.checkpoint, state_root=bytes(32))
        return [(to, msgspec.structs.replace(message, checkpoint=false))]

    def thin_out(self, to: ReplicaIndex, message: Any) -> Said:
        """Leave one signer out of every certificate."""
        return [(to, without_a_signer(message))]

    # -- several at once ------------------------------------------------------------------------------

    def waver(self, to: ReplicaIndex, message: Any) -> Said:
        """Lie now in this way and now in that."""
        if self.messages % MOOD == 0:
            self.mood = self.random.choice([name for name, (_, way) in BEHAVIOURS.items() if way is not Liar.waver])
        self.messages += 1
        kinds, way = BEHAVIOURS[self.mood]
        return way(self, to, message) if kind_of(message) in kinds else [(to, message)]


Way = Callable[[Liar, ReplicaIndex, Any], Said]

EVERYTHING = ("proposal", "vote", "view change", "talk", "checkpoint", "question", "answer", "body")
_SIGNED = ("proposal", "vote", "view change", "checkpoint")
_ENGINE = ("proposal", "vote", "view change")

BEHAVIOURS: Mapping[str, tuple[tuple[str, ...], Way]] = {
    "silent": (EVERYTHING, Liar.drop),
    "silent to half": (EVERYTHING, Liar.drop_for_half),
    "speaking to one": (EVERYTHING, Liar.drop_but_for_one),
    "mumbling": (EVERYTHING, Liar.drop_often),
    "proposing nothing": (("proposal",), Liar.drop),
    "proposing to half": (("proposal",), Liar.drop_for_half),
    "proposing to one": (("proposal",), Liar.drop_but_for_one),
    "never voting": (("vote",), Liar.drop),
    "voting to half": (("vote",), Liar.drop_for_half),
    "never changing views": (("view change",), Liar.drop),
    "changing views to half": (("view change",), Liar.drop_for_half),
    "keeping checkpoints": (("checkpoint",), Liar.drop),
    "never answering": (("answer", "body"), Liar.drop),
    "never asking": (("question", "talk"), Liar.drop),
    "delaying": (EVERYTHING, Liar.delay),
    "delaying proposals": (("proposal",), Liar.delay),
    "delaying votes": (("vote",), Liar.delay),
    "delaying view changes": (("view change",), Liar.delay),
    "dripping": (EVERYTHING, Liar.drip),
    "dripping proposals": (("proposal",), Liar.drip),
    "reversing": (EVERYTHING, Liar.reverse),
    "equivocating": (_SIGNED, Liar.equivocate),
    "equivocating proposals": (("proposal",), Liar.equivocate),
    "equivocating votes": (("vote",), Liar.equivocate),
    "equivocating view changes": (("view change",), Liar.equivocate),
    "equivocating checkpoints": (("checkpoint",), Liar.equivocate),
    "deceiving one": (_ENGINE, Liar.deceive_one),
    "contradicting itself": (_SIGNED, Liar.contradict),
    "forking": (("proposal", "vote"), Liar.fork),
    "withholding bodies": (("body",), Liar.drop),
    "bodies for one": (("body",), Liar.drop_but_for_one),
    "bodies for half": (("body",), Liar.drop_for_half),
    "inventing requests": (("body",), unasked.invent),
    "flooding bodies": (("body",), unasked.flood_bodies),
    "wrong bodies": (("body",), Liar.wrong_body),
    "stale": (EVERYTHING, Liar.repeat_old),
    "stale votes": (("vote",), Liar.repeat_old),
    "stale view changes": (("view change",), Liar.repeat_old),
    "repeating itself": (EVERYTHING, Liar.add_old),
    "corrupt": (EVERYTHING, Liar.corrupt),
    "corrupt proposals": (("proposal",), Liar.corrupt),
    "corrupt votes": (("vote",), Liar.corrupt),
    "corrupt view changes": (("view change",), Liar.corrupt),
    "corrupt checkpoints": (("checkpoint",), Liar.corrupt),
    "corrupt answers": (("answer", "question", "talk"), Liar.corrupt),
    "mutating": (EVERYTHING, Liar.corrupt_some),
    "wrong signatures": (_SIGNED, Liar.sign_wrongly),
    "boasting": (("answer",), Liar.boast),
    "exaggerating": (("answer", "vote", "talk"), Liar.exaggerate),
    "belittling": (("answer", "checkpoint"), Liar.belittle),
    "wrong roots": (("checkpoint",), Liar.wrong_roots),
    "cutting answers": (("answer",), cut_answers),
    "dripping states": (("answer",), drip_states),
    "enormous states": (EVERYTHING, feed_enormous_states),
    "offering nothing": (("answer",), unasked.offer_nothing),
    "thin certificates": (("view change", "answer", "talk"), Liar.thin_out),
    "flooding votes": (("vote",), Liar.flood),
    "flooding checkpoints": (("checkpoint",), unasked.flood_checkpoints),
    "flooding offers": (("answer",), unasked.flood_offers),
    "flooding proposals": (("proposal",), Liar.flood),
    "flooding views": (("view change", "talk"), Liar.flood),
    "insisting": (("question", "answer", "talk"), Liar.insist),
    "censoring": (("proposal",), Liar.censor),
    "misdirecting": (EVERYTHING, Liar.misdirect),
    "forking and withholding": (("proposal", "vote", "body"), Liar.fork_and_withhold),
    "proposing late": (("proposal",), Liar.say_late),
    "relabelling": (("proposal", "view change", "talk", "answer"), relabel),
    "nagging": (("proposal", "vote", "view change"), unasked.nag),
    "asking for all": (_SIGNED, unasked.ask_for_all),
    "wavering": (EVERYTHING, Liar.waver),
}
"""For each behaviour, the kinds of messages that it treats, and how."""


def draw_behaviour(random: Random) -> str:
    """Draw the name of a behaviour."""
    return random.choice(tuple(BEHAVIOURS))


def make_behaviour(name: str, *, spec: EngineSpec, own: ReplicaIndex, members: int, random: Random) -> Behaviour:
    """Return what a lying member does with its messages; KeyError for a name that is not in `BEHAVIOURS`."""
    kinds, way = BEHAVIOURS[name]
    liar = Liar(spec, own, members, random)

    def speak(to: ReplicaIndex, message: Any) -> Said:
        liar.note(message)
        return way(liar, to, message) if kind_of(message) in kinds else [(to, message)]

    return speak
