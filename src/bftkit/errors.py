"""The exceptions of bftkit, drawn as a tree.

::

    BftkitError
    ├── ConfigurationError        a setting, a file or a membership that cannot be used (.problems)
    ├── EngineError               an engine is missing, or broke its contract
    ├── SafetyViolation           a replica was about to sign what it must not: it stops
    ├── StorageError              the disk failed, or says what it should not (.path)
    │   ├── CorruptLog
    │   ├── StorageFull
    │   ├── StorageLocked
    │   └── UnsupportedFormat
    ├── WireError                 bytes of a peer that cannot be used: the connection closes
    │   ├── FrameTooLarge
    │   ├── MalformedMessage
    │   └── HandshakeRefused      (.reason, .key)
    ├── ApplicationError          the state machine raised in `apply`: its replica stops there
    └── ClientError               what a caller of `submit` or `query` gets
        ├── NotReady              before start, after stop, or still catching up
        ├── Overloaded            try again (.retry_after, seconds)
        ├── Rejected              a definite no: the command was not and will not be executed (.reason)
        └── OutcomeUnknown        no answer in time (.command_id): the same id may be submitted again

Misbehaviour of a peer is not an exception: engines report it as a value (`Reject`, `Accuse`).
"""

from collections.abc import Sequence
from typing import Any


class BftkitError(Exception):
    """Root of everything that bftkit raises on purpose."""


class ConfigurationError(BftkitError):
    """Say which settings, files or memberships cannot be used."""

    def __init__(self, message: str, problems: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        """The single findings, where there are several."""


class EngineError(BftkitError):
    """An engine is not installed, or broke its contract."""


class SafetyViolation(BftkitError):
    """A statement was about to be signed that contradicts an earlier one."""


class StorageError(BftkitError):
    """The disk failed or holds what it should not."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path
        """The file concerned, where there is one."""


class CorruptLog(StorageError):
    """A record that was durable is damaged or missing."""


class StorageFull(StorageError):
    """No space is left."""


class StorageLocked(StorageError):
    """Another process uses this folder."""


class UnsupportedFormat(StorageError):
    """The data was written in a format that this version does not read."""


class WireError(BftkitError):
    """A peer sent bytes that cannot be used."""


class FrameTooLarge(WireError):
    """A frame announced more than its type may carry."""


class MalformedMessage(WireError):
    """A message does not decode, or not to its canonical form."""


class HandshakeRefused(WireError):
    """One side does not want to talk to the other."""

    def __init__(self, reason: str, key: str = "") -> None:
        super().__init__(f"{reason} ({key})" if key else reason)
        self.reason = reason
        """Why, in words."""
        self.key = key
        """The setting that differs, where that is the reason."""


class ApplicationError(BftkitError):
    """The state machine raised where it must be deterministic and total."""


class ClientError(BftkitError):
    """Root of what a caller of `submit` or `query` gets."""


class NotReady(ClientError):
    """The node is not started, is stopping, or is still catching up."""


class Overloaded(ClientError):
    """There is more work than the cluster takes; nothing was accepted."""

    def __init__(self, message: str, retry_after: float = 0.1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds to wait before the next try."""


class Rejected(ClientError):
    """The command was not executed, and will not be."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """Why, in words."""


class OutcomeUnknown(ClientError):
    """No answer came in time: the command may or may not have been executed."""

    def __init__(self, command_id: object) -> None:
        super().__init__(f"no answer in time for {command_id}; submitting the same id again is safe")
        self.command_id = command_id
        """What to submit again; it is executed at most once."""
