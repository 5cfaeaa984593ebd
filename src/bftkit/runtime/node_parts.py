"""What a node is made of: settings, key, disk, network, clock; and how a program puts in parts of its own."""

from collections.abc import Callable
from typing import Any

import msgspec

from bftkit.replica.settings import ReplicaSettings
from bftkit.runtime.client_port import ClientPort
from bftkit.runtime.clock import Clock, SystemClock
from bftkit.runtime.failpoints import Hit, pass_by
from bftkit.runtime.first_start import FirstStart
from bftkit.runtime.transport import Transport
from bftkit.storage.interface import Storage
from bftkit.wire.auth import SigningKey


class NodeParts(msgspec.Struct, kw_only=True):
    """What a node is made of, beside the state machine.

    Storage, transport and clock are interfaces: what a program puts there may be slow, faulty or simulated.
    """

    settings: ReplicaSettings
    key: SigningKey
    """Signs its votes."""
    storage: Storage
    transport: Transport
    port: ClientPort | None = None
    """Where clients connect; None inside a program."""
    metrics_address: str = ""
    """Where metrics are served; empty: nowhere."""
    first_start: FirstStart | None = None
    """Whether the disk may be empty; None: it may."""
    lanes: int = 1
    """Inbound queues, a power of two."""
    facts: dict[str, Any] = {}
    """What `status` says besides."""
    clock: Clock = msgspec.field(default_factory=SystemClock)
    hit: Hit = pass_by
    """Told of the failpoints that are passed; the storage has its own, see `FailpointStorage`."""


Adapt = Callable[[NodeParts], NodeParts]
"""Makes of a node's parts others: with a storage, a transport or a clock from outside."""
