"""The pure composition above an engine: everything that outlives it.

`Replica.step(input) -> outputs` hosts an engine together with the payload plane, the mempool, the
right to sign, checkpoints and catching up; `Executor` applies what was decided, exactly once.
"""

from bftkit.replica.client_messages import Envelope, OpenSession, Reply, SessionOpened
from bftkit.replica.execution import Executor
from bftkit.replica.gate import DurabilityGate
from bftkit.replica.recovery import recover
from bftkit.replica.replica import Replica
from bftkit.replica.settings import ReplicaSettings

__all__ = [
    "DurabilityGate",
    "Envelope",
    "Executor",
    "OpenSession",
    "Replica",
    "ReplicaSettings",
    "Reply",
    "SessionOpened",
    "recover",
]
