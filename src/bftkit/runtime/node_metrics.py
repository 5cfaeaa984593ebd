"""What a node shows to a monitoring system, read off its parts when somebody asks."""

from typing import TYPE_CHECKING

import msgspec

from bftkit.runtime.metrics import ConsensusMetrics, Counter, Registry

if TYPE_CHECKING:
    from bftkit.runtime.node import Node

_TEXTS = {
    "turns": "Turns of the shard's loop.",
    "steps": "Inputs that the replica has handled.",
    "messages_sent": "Messages sent to peers.",
    "signatures": "Statements signed.",
    "fsyncs": "Syncs of the log.",
    "blocks": "Decided positions with at least one batch.",
    "dropped": "Frames that a full or closed outbox did not take.",
    "disk_full": "Syncs that failed because the disk was full.",
    "oversized": "Messages that fit no frame.",
    "deferred": "Bodies and requests that were put off while the disk lagged.",
}


class NodeMetrics:
    """The registry of one node."""

    def __init__(self, group: int, engine: str) -> None:
        self.registry = Registry()
        labels = {"group": str(group), "engine": engine}
        self.consensus = ConsensusMetrics.enter(self.registry, **labels)
        self._shard = {
            name: self.registry.counter(f"bftkit_{name}_total", text, **labels) for name, text in _TEXTS.items()
        }
        self._commands = self.registry.counter("bftkit_commands_total", "Commands executed.", **labels)
        self._rejected = self.registry.counter(
            "bftkit_rejected_total", "Messages of peers that were refused.", **labels
        )
        self._requests = self.registry.counter("bftkit_requests_total", "Requests of clients.", **labels)
        self._reads = self.registry.counter("bftkit_reads_total", "Reads answered here alone.", **labels)
        self._height = self.registry.gauge("bftkit_height", "Batches decided.", **labels)
        self._applied = self.registry.gauge("bftkit_applied_height", "Batches executed.", **labels)
        self._peers = self.registry.gauge("bftkit_peers", "Members that a channel is open to.", **labels)
        self._clients = self.registry.gauge("bftkit_clients", "Clients that are connected.", **labels)
        self._waiting = self.registry.gauge("bftkit_gate_depth", "Outputs that wait for the disk.", **labels)

    def page(self, node: "Node") -> str:
        """Bring every number up to date and return the page."""
        replica = node.replica
        for name, value in msgspec.structs.asdict(node.shard.counters).items():
            _set(self._shard[name], value)
        _set(self.consensus.committed_blocks, replica.commits.height)
        _set(self._commands, node.application.commands)
        _set(self._rejected, node.pipeline.counters.rejected)
        _set(self._requests, node.edge.counters.requests)
        _set(self._reads, node.reads.count)
        self.consensus.current_round.value = replica.engine.view
        self._height.value = replica.commits.height
        self._applied.value = node.application.executor.height
        self._peers.value = sum(replica.catch_up.connected)
        self._clients.value = node.edge.clients
        self._waiting.value = node.shard.gate_depth
        return self.registry.exposition()


def _set(counter: Counter, value: int) -> None:
    """Bring a counter up to what a part has counted itself."""
    counter.value = max(counter.value, value)
