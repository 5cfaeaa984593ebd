"""What may be signed: the one place that decides it, for every engine.

A correct member signs at most one content for a slot (kind, view, position). It does not vote in a
view that it has given up, and not at or below a position that a stable checkpoint covers. What was
signed is in the same log record as the step that led to it, and that record is a barrier before the
signature leaves; so a restart cannot forget it.
"""

from collections.abc import Mapping

from bftkit.core.checkpoint import CHECKPOINT_KIND
from bftkit.core.engine import SigningRule
from bftkit.core.statement import Statement
from bftkit.replica.records import SignedSlot, StepRecord

_UNKNOWN_KIND = SigningRule()

_REPLICA_KINDS = {CHECKPOINT_KIND: SigningRule(guarded=False)}
"""The replica's own statements: a checkpoint speaks of what was executed, in whatever view."""


class SigningGuard:
    """The signing watermark of one replica in one epoch."""

    __slots__ = ("_rules", "_slots", "floor", "low_mark")

    def __init__(self, rules: Mapping[str, SigningRule]) -> None:
        self._rules = {**rules, **_REPLICA_KINDS}
        self._slots: dict[tuple[str, int, int], bytes] = {}
        self.floor = 0
        """Guarded statements below this view are refused."""
        self.low_mark = 0
        """Statements at or below this position are refused."""

    def admit(self, statement: Statement) -> str | None:
        """Record that a statement is about to be signed; return why it must not be, or None.

        Saying the same again is always allowed while the slot is remembered.
        """
        slot = statement.slot
        earlier = self._slots.get(slot)
        if earlier is not None:
            return None if earlier == statement.content else f"another content was signed for {slot}"
        rule = self._rules.get(statement.kind, _UNKNOWN_KIND)
        if 0 < statement.position <= self.low_mark:
            return f"{statement.kind} at {statement.position} is below the stable checkpoint {self.low_mark}"
        if statement.view < self.floor and (rule.guarded or statement.position == 0):
            # Slots without a position are forgotten below the floor, so nothing may be said for them there.
            return f"{statement.kind} in view {statement.view} after view {self.floor} was joined"
        if rule.raises_floor is not None:
            raised = statement.view + rule.raises_floor
            if raised < self.floor:
                return f"{statement.kind} for view {statement.view} after view {self.floor} was joined"
            self.floor = raised
        self._slots[slot] = statement.content
        return None

    def is_new(self, statement: Statement) -> bool:
        """Say whether signing a statement would have to be recorded first."""
        return statement.slot not in self._slots

    def stable(self, position: int) -> None:
        """Forget the slots that a stable checkpoint covers, and never sign there again.

        Of those without a position, the slots of the view just below the floor stay: what was said when that view was
        given up may have to be said again.
        """
        self.low_mark = max(self.low_mark, position)
        self._slots = {
            slot: content
            for slot, content in self._slots.items()
            if slot[2] > self.low_mark or (slot[2] == 0 and slot[1] + 1 >= self.floor)
        }

    def snapshot(self) -> tuple[SignedSlot, ...]:
        """List everything that is remembered."""
        return tuple(SignedSlot(*slot, content) for slot, content in self._slots.items())

    def slots_of(self, statements: list[Statement]) -> tuple[SignedSlot, ...]:
        """List statements as the log remembers them."""
        return tuple(SignedSlot(s.kind, s.view, s.position, s.content) for s in statements)

    def restore(self, record: StepRecord) -> None:
        """Take over what an earlier life of this replica had recorded."""
        if record.replaces_earlier:
            self._slots.clear()
        self.floor = max(self.floor, record.floor)
        self.low_mark = max(self.low_mark, record.low_mark)
        for signed in record.signed:
            self._slots[(signed.kind, signed.view, signed.position)] = signed.content

    def __len__(self) -> int:
        return len(self._slots)
