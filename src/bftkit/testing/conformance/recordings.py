"""What one engine of a run was told, to be told again to a fresh one: alone, and with something else besides.

Whatever such an engine does, nobody hears it but itself; so it may be told anything that it could hear in a group
with faulty members, and the only question is what it answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Available, EngineInput, Received, Stable, Synced
from bftkit.core.log import CommitEntry
from bftkit.core.outputs import Broadcast, Commit, EngineOutput, Persist, Send, SetTimer
from bftkit.core.statement import SignedMessage
from bftkit.testing.conformance.case import Trial
from bftkit.testing.engine_group import START, EngineGroup, Instance

MOST_OWN_MESSAGES = 200
"""Messages to itself that an engine is told after one input: an engine that goes on talking to itself is stopped."""


class Heard(NamedTuple):
    """A message as a member hears it."""

    sender: ReplicaIndex
    message: Any


class Recording:
    """Everything that a run brought about."""

    def __init__(self, trial: Trial) -> None:
        self.inputs: dict[int, list[EngineInput]] = {}
        """For each instance, what its engine was told before it crashed for the first time."""
        self.messages: dict[Heard, None] = {}
        """Every message that anybody was told, once."""
        self.records: list[Any] = []
        self.refs: dict[bytes, BatchRef] = {}
        self.stables: dict[int, CheckpointCertificate] = {}
        self.timers: dict[str, None] = {}
        self.group = trial.play(self._watch)

    def _watch(self, group: EngineGroup) -> None:
        self.inputs = {instance.number: [] for instance in group.instances}

        def note(instance: Instance, event: EngineInput, outputs: list[EngineOutput]) -> None:
            if instance.life == 0:
                self.inputs[instance.number].append(event)
            match event:
                case Received(_, sender, message):
                    self.messages[Heard(sender, message)] = None
                case Available(_, refs) | Synced(_, _, refs, _):
                    self.refs.update((ref.digest, ref) for ref in refs)
                case Stable(_, checkpoint):
                    self.stables[checkpoint.position] = checkpoint
            for output in outputs:
                match output:
                    case Persist(record):
                        self.records.append(record)
                    case SetTimer(timer):
                        self.timers[timer] = None

        group.on_step = note

    @property
    def entries(self) -> list[CommitEntry]:
        """Return the longest log of an honest member."""
        return max((one.log for one in self.group.instances if one.honest), key=len)

    def sandbox(self, number: int, inputs: int) -> Sandbox:
        """Return a fresh engine that has been told the first so many inputs of an instance."""
        box = Sandbox(self.group, number)
        for event in self.inputs[number][:inputs]:
            box.tell(event)
        # What it had said to itself is among the inputs.
        box.own_messages.clear()
        return box


class Sandbox:
    """One engine by itself. Its own messages come back to it, signed; all others are lost."""

    def __init__(self, group: EngineGroup, number: int) -> None:
        instance = group.instances[number]
        self._group = group
        self.context = instance.context
        self.engine = group.spec.build(instance.context, group.genesis, START, ())
        self.now = group.settings.begin_ms
        self.position = 0
        """Last position that it has committed or was told of."""
        self.stable = 0
        """Highest stable checkpoint that it was told of."""
        self.own_messages: deque[Any] = deque()
        self._note(self.engine.start(self.now))

    def tell(self, event: EngineInput) -> list[EngineOutput]:
        """Give it one input; return what it wants done."""
        self.now = event.now
        outputs: list[EngineOutput] = self.engine.step(event)
        if isinstance(event, Synced):
            self.position = max(self.position, event.position)
        elif isinstance(event, Stable):
            self.stable = max(self.stable, event.checkpoint.position)
        self._note(outputs)
        return outputs

    def hear(self, sender: ReplicaIndex, message: Any) -> list[EngineOutput]:
        """Let it hear a message, and then what it says to itself because of it."""
        return self.tell(Received(self.now, sender, message)) + self.hear_itself()

    def hear_itself(self) -> list[EngineOutput]:
        """Let it hear what it has said to itself, until it says no more."""
        out: list[EngineOutput] = []
        for _ in range(MOST_OWN_MESSAGES):
            if not self.own_messages:
                break
            out += self.tell(Received(self.now, self.context.own, self.own_messages.popleft()))
        return out

    def _note(self, outputs: Iterable[EngineOutput]) -> None:
        own = self.context.own
        for output in outputs:
            if isinstance(output, Broadcast) or (isinstance(output, Send) and output.to == own):
                message = output.message
                if isinstance(message, SignedMessage):
                    message = self._group.sign(own, msgspec.structs.replace(message, signature=b""))
                self.own_messages.append(message)
            elif isinstance(output, Commit):
                self.position = max(self.position, output.position)
