"""A key-value store: commands and results in msgpack, a state root that costs only what changed.

Commands are arrays that begin with a number; keys and values are byte strings::

    [0, key, value]              put                 -> [0, nil]
    [1, key]                     delete              -> [0, nil], or [1, nil] if there was nothing
    [2, key, expected, value]    compare and set     -> [0, nil], or [2, what is there]
    [3, key, number]             add to a number     -> [0, the sum in decimal], or [4, what is there]
    [4, key]                     read, in the log    -> [0, value], or [1, nil]

`expected` is nil for "nothing there". `add` reads the value as a decimal number, nothing there as 0; number and sum are
signed 64-bit. A malformed command has the result [3, nil]. Queries are arrays too: ``[0, key]`` gets a value
(-> [0, value] or [1, nil]) and ``[1]`` counts the keys (-> [0, count in decimal]).
"""

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated

import msgspec

from bftkit.batteries.state_tree import StateTree
from bftkit.core.batch import CommittedBatch
from bftkit.errors import ApplicationError, Rejected

_Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class Put(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False, forbid_unknown_fields=True):
    """Set a key to a value."""

    key: bytes
    value: bytes


class Delete(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False, forbid_unknown_fields=True):
    """Remove a key."""

    key: bytes


class CompareAndSet(msgspec.Struct, array_like=True, tag=2, frozen=True, gc=False, forbid_unknown_fields=True):
    """Set a key to a value if it has the expected one."""

    key: bytes
    expected: bytes | None
    value: bytes


class Add(msgspec.Struct, array_like=True, tag=3, frozen=True, gc=False, forbid_unknown_fields=True):
    """Add to the decimal number that is the value of a key."""

    key: bytes
    number: _Int64


class Read(msgspec.Struct, array_like=True, tag=4, frozen=True, gc=False, forbid_unknown_fields=True):
    """Get the value of a key at this command's place in the log."""

    key: bytes


class Get(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False, forbid_unknown_fields=True):
    """Ask for the value of a key."""

    key: bytes


class Size(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False, forbid_unknown_fields=True):
    """Ask for the number of keys."""


class Status(IntEnum):
    """How a command or a query went."""

    OK = 0
    ABSENT = 1
    """There is no such key."""
    DIFFERENT = 2
    """Compare and set found another value, which the result carries (nil: nothing)."""
    MALFORMED = 3
    """The bytes are no command, or no query."""
    NO_NUMBER = 4
    """The value, or the sum, is no signed 64-bit decimal number."""


class Result(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a command or a query gave."""

    status: Status
    value: bytes | None = None


Command = Put | Delete | CompareAndSet | Add | Read

_encode = msgspec.msgpack.Encoder().encode
_decode_command = msgspec.msgpack.Decoder(Command).decode
_decode_query = msgspec.msgpack.Decoder(Get | Size).decode
_decode_result = msgspec.msgpack.Decoder(Result).decode
_decode_snapshot = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode

_OK = _encode(Result(Status.OK))
_ABSENT = _encode(Result(Status.ABSENT))
_MALFORMED = _encode(Result(Status.MALFORMED))
_NUMBER = re.compile(rb"-?[0-9]{1,19}")


def put(key: bytes, value: bytes) -> bytes:
    """Return the command that sets a key."""
    return _encode(Put(key, value))


def delete(key: bytes) -> bytes:
    """Return the command that removes a key."""
    return _encode(Delete(key))


def compare_and_set(key: bytes, expected: bytes | None, value: bytes) -> bytes:
    """Return the command that sets a key if its value is the expected one; None expects that there is none."""
    return _encode(CompareAndSet(key, expected, value))


def add(key: bytes, number: int) -> bytes:
    """Return the command that adds to a decimal number."""
    return _encode(Add(key, number))


def read(key: bytes) -> bytes:
    """Return the command that reads a key: ordered like every other, so it sees all that was executed before it."""
    return _encode(Read(key))


def get(key: bytes) -> bytes:
    """Return the query for the value of a key."""
    return _encode(Get(key))


def size() -> bytes:
    """Return the query for the number of keys."""
    return _encode(Size())


def result(data: bytes) -> Result:
    """Return a result that `apply` or `query` gave.

    Raises:
        ApplicationError: it is none.
    """
    try:
        return _decode_result(data)
    except msgspec.DecodeError as error:
        raise ApplicationError(f"this is not a result of the key-value store: {error}") from error


class KeyValue:
    """Keep byte strings under byte strings."""

    def __init__(self) -> None:
        self._data: dict[bytes, bytes] = {}
        self._tree = StateTree(self._data)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._data)

    def apply(self, batch: CommittedBatch) -> list[bytes]:
        """Execute the commands in order; return one encoded `Result` for each."""
        data, changed = self._data, self._tree.changed
        results: list[bytes] = []
        append = results.append
        for encoded in batch.commands:
            try:
                command = _decode_command(encoded)
            except msgspec.DecodeError:
                append(_MALFORMED)
                continue
            # Nearly all commands are puts: they take neither a call nor a look-up.
            if isinstance(command, Put):
                key = command.key
                data[key] = command.value
                changed[key] = None
                append(_OK)
            else:
                append(self._execute(command))
        return results

    def snapshot(self) -> bytes:
        """Return all keys and values, sorted by key, so that equal states have equal snapshots."""
        return _encode(sorted(self._data.items()))

    def restore(self, data: bytes) -> None:
        """Replace the state by that of a snapshot.

        Raises:
            ApplicationError: it is no snapshot of a key-value store; the state is as it was.
        """
        try:
            pairs = _decode_snapshot(data)
        except msgspec.DecodeError as error:
            raise ApplicationError(f"this is not the snapshot of a key-value store: {error}") from error
        restored = dict(pairs)
        if _encode(sorted(restored.items())) != data:
            raise ApplicationError("the snapshot of the key-value store is not in its one canonical form")
        self._data = restored
        self._tree = StateTree(restored)

    def state_root(self) -> bytes:
        """Return a digest of the whole state, 32 bytes; it hashes only the neighbourhood of what changed since."""
        return self._tree.root()

    def query(self, request: bytes) -> bytes:
        """Answer a query with an encoded `Result`."""
        try:
            query = _decode_query(request)
        except msgspec.DecodeError:
            return _MALFORMED
        if isinstance(query, Size):
            return _encode(Result(Status.OK, b"%d" % len(self._data)))
        return self._value(query.key)

    def check(self, command: bytes) -> None:
        """Refuse what is no command before it is ordered.

        Raises:
            Rejected: the command is malformed.
        """
        try:
            _decode_command(command)
        except msgspec.DecodeError as error:
            raise Rejected(f"this is not a command of the key-value store: {error}") from error

    def _execute(self, command: Delete | CompareAndSet | Add | Read) -> bytes:
        match command:
            case Delete():
                return self._delete(command)
            case CompareAndSet():
                return self._compare_and_set(command)
            case Add():
                return self._add(command)
            case Read():
                return self._value(command.key)

    def _value(self, key: bytes) -> bytes:
        value = self._data.get(key)
        return _ABSENT if value is None else _encode(Result(Status.OK, value))

    def _delete(self, command: Delete) -> bytes:
        if self._data.pop(command.key, None) is None:
            return _ABSENT
        self._tree.changed[command.key] = None
        return _OK

    def _compare_and_set(self, command: CompareAndSet) -> bytes:
        found = self._data.get(command.key)
        if found != command.expected:
            return _encode(Result(Status.DIFFERENT, found))
        self._data[command.key] = command.value
        self._tree.changed[command.key] = None
        return _OK

    def _add(self, command: Add) -> bytes:
        found = self._data.get(command.key, b"0")
        total = int(found) + command.number if _NUMBER.fullmatch(found) else None
        if total is None or not -(1 << 63) <= total < 1 << 63:
            return _encode(Result(Status.NO_NUMBER, found))
        self._data[command.key] = value = b"%d" % total
        self._tree.changed[command.key] = None
        return _encode(Result(Status.OK, value))

    @staticmethod
    def command_from_text(words: Sequence[str]) -> bytes:
        """Return the command that a person typed: "put k v", "delete k", "cas k old new", "add k 5", "read k".

        Raises:
            Rejected: it is none of them.
        """
        match list(words):
            case ["put", key, value]:
                return put(key.encode(), value.encode())
            case ["delete", key]:
                return delete(key.encode())
            case ["cas", key, expected, value]:
                return compare_and_set(key.encode(), expected.encode(), value.encode())
            case ["add", key, number] if _NUMBER.fullmatch(number.encode()) and -(1 << 63) <= int(number) < 1 << 63:
                return add(key.encode(), int(number))
            case ["get" | "read", key]:
                return read(key.encode())
        raise Rejected("say: put KEY VALUE, delete KEY, cas KEY EXPECTED VALUE, add KEY NUMBER, or read KEY")

    @staticmethod
    def query_from_text(words: Sequence[str]) -> bytes:
        """Return the query that a person typed: "get k" or "size".

        Raises:
            Rejected: it is none of them.
        """
        match list(words):
            case ["get", key]:
                return get(key.encode())
            case ["size"]:
                return size()
        raise Rejected("say: get KEY, or size")

    @staticmethod
    def result_to_text(data: bytes) -> str:
        """Return a result as people read it."""
        answer = result(data)
        words = answer.status.name.lower().replace("_", " ")
        return words if answer.value is None else f"{words}: {answer.value.decode('utf-8', 'backslashreplace')}"
