"""Consensus for Python node software: one engine contract, engines as plugins, state that survives.

The names below are loaded when they are first used, so that importing a pure part of the package
loads neither an event loop nor TLS.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bftkit.core.batch import CommittedBatch
    from bftkit.core.engine import ConsensusEngine, EngineSpec
    from bftkit.errors import BftkitError, NotReady, OutcomeUnknown, Overloaded, Rejected
    from bftkit.plugins import hookimpl, installed_engines, load_engine, load_engines
    from bftkit.replica.state_machine import StateMachine
    from bftkit.runtime.client import Client, Receipt
    from bftkit.runtime.client_reads import Reading
    from bftkit.runtime.clock import Clock, SystemClock
    from bftkit.runtime.cluster import Cluster
    from bftkit.runtime.node import Node, NodeEvent
    from bftkit.runtime.node_parts import Adapt, NodeParts
    from bftkit.runtime.transport import Transport
    from bftkit.storage.interface import Storage

_HOMES = {
    "Adapt": "bftkit.runtime.node_parts",
    "BftkitError": "bftkit.errors",
    "Client": "bftkit.runtime.client",
    "Clock": "bftkit.runtime.clock",
    "Cluster": "bftkit.runtime.cluster",
    "CommittedBatch": "bftkit.core.batch",
    "ConsensusEngine": "bftkit.core.engine",
    "EngineSpec": "bftkit.core.engine",
    "Node": "bftkit.runtime.node",
    "NodeEvent": "bftkit.runtime.node",
    "NodeParts": "bftkit.runtime.node_parts",
    "NotReady": "bftkit.errors",
    "OutcomeUnknown": "bftkit.errors",
    "Overloaded": "bftkit.errors",
    "Reading": "bftkit.runtime.client_reads",
    "Receipt": "bftkit.runtime.client",
    "Rejected": "bftkit.errors",
    "StateMachine": "bftkit.replica.state_machine",
    "Storage": "bftkit.storage.interface",
    "SystemClock": "bftkit.runtime.clock",
    "Transport": "bftkit.runtime.transport",
    "hookimpl": "bftkit.plugins",
    "installed_engines": "bftkit.plugins",
    "load_engine": "bftkit.plugins",
    "load_engines": "bftkit.plugins",
}

__all__ = [
    "Adapt",
    "BftkitError",
    "Client",
    "Clock",
    "Cluster",
    "CommittedBatch",
    "ConsensusEngine",
    "EngineSpec",
    "Node",
    "NodeEvent",
    "NodeParts",
    "NotReady",
    "OutcomeUnknown",
    "Overloaded",
    "Reading",
    "Receipt",
    "Rejected",
    "StateMachine",
    "Storage",
    "SystemClock",
    "Transport",
    "hookimpl",
    "installed_engines",
    "load_engine",
    "load_engines",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
