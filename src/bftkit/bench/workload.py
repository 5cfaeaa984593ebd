"""What a load generator submits, and how it can be told afterwards that nothing was lost or done twice.

Commands are those of the key-value store, each as long as asked for (to a byte, where
msgpack's headers leave a gap). They belong to *lanes*; a lane has one
envelope on its way at a time. An envelope is one `add` of 1 to the lane's counter and otherwise puts of the envelope's
number to keys of the lane. So when all is answered, each counter must equal the number of envelopes that its lane has
had executed (smaller: lost; greater: executed twice), and since the state root depends on the content alone, the
replicas' root must equal that of the content that the generator expects, to the last key.
"""

from collections.abc import Sequence

from bftkit.batteries.kv import KeyValue, add, put, result
from bftkit.core.batch import CommittedBatch
from bftkit.errors import ConfigurationError

SHORTEST_PAYLOAD = 32
"""Bytes that a command needs at least to carry its key and number."""
LONGEST_PAYLOAD = 60_000
_NUMBER_BYTES = 8


def counter_key(lane: int, payload_bytes: int) -> bytes:
    """Return the key of a lane's counter, as long as makes the `add` as long as the other commands."""
    name = b"c%07d" % lane
    return name + b"." * (payload_bytes - len(add(name, 1)) - _growth(payload_bytes, len(name)))


def _growth(payload_bytes: int, length: int) -> int:
    """Return how much longer msgpack's header of a byte string gets when the string fills the payload."""
    return _header_bytes(payload_bytes) - _header_bytes(length)


def _header_bytes(length: int) -> int:
    return 2 if length < 256 else 3


class Lane:
    """One lane: the commands of its next envelope, and what it expects of the store."""

    __slots__ = ("_parts", "adding", "executed", "number")

    def __init__(self, number: int, payload_bytes: int, puts: int) -> None:
        self.number = number
        self.executed = 0
        """Envelopes that were answered."""
        self.adding = add(counter_key(number, payload_bytes), 1)
        self._parts = [_put_around_number(b"l%dk%d" % (number, slot), payload_bytes) for slot in range(puts)]

    def commands(self) -> list[bytes]:
        """Return the commands of the next envelope."""
        number = self.executed.to_bytes(_NUMBER_BYTES, "big")
        return [self.adding, *[head + number + tail for head, tail in self._parts]]

    def last(self) -> list[bytes]:
        """Return the puts of the last answered envelope: what the store must hold."""
        if not self.executed:
            return []
        number = (self.executed - 1).to_bytes(_NUMBER_BYTES, "big")
        return [head + number + tail for head, tail in self._parts]


def _put_around_number(key: bytes, payload_bytes: int) -> tuple[bytes, bytes]:
    """Return what stands before and after the number in a put of exactly this length."""
    empty = len(put(key, b""))
    length = payload_bytes - empty - _growth(payload_bytes - empty, 0)
    mark = b"\xff" * _NUMBER_BYTES
    command = put(key, mark + b"." * (length - _NUMBER_BYTES))
    head, _, tail = command.partition(mark)
    return head, tail


def make_lanes(count: int, payload_bytes: int, envelope_commands: int) -> list[Lane]:
    """Return lanes; ConfigurationError where the payload is too short or too long for a command."""
    if not SHORTEST_PAYLOAD <= payload_bytes <= LONGEST_PAYLOAD:
        raise ConfigurationError(f"a payload has {SHORTEST_PAYLOAD} to {LONGEST_PAYLOAD} bytes, not {payload_bytes}")
    return [Lane(number, payload_bytes, envelope_commands - 1) for number in range(count)]


def expected_root(lanes: Sequence[Lane], payload_bytes: int) -> bytes:
    """Return the state root of a store that executed every answered envelope exactly once."""
    store = KeyValue()
    for lane in lanes:
        if lane.executed:
            key = counter_key(lane.number, payload_bytes)
            store.apply(CommittedBatch(0, 1, [put(key, b"%d" % lane.executed), *lane.last()]))
    return store.state_root()


def counted(answer: bytes) -> int:
    """Return the value of a counter from the store's answer to a query; 0 where there is none."""
    value = result(answer).value
    return int(value) if value else 0
