"""What a replica is built from."""

from typing import Any

import msgspec

from bftkit.core.engine import EngineContext, EngineSpec
from bftkit.core.epoch import Genesis
from bftkit.core.ids import ReplicaIndex
from bftkit.core.membership import Membership


class ReplicaTuning(msgspec.Struct, frozen=True):
    """Local bounds and delays; replicas need not agree on them."""

    batches_in_flight: int = 4
    """Own batches on their way up to which a new one is closed at once, however small."""
    max_batches_in_flight: int = 24
    """Own batches on their way beyond which commands wait."""
    collect_bytes: int = 2_097_152
    """Commands that wait to be put into a batch; beyond it clients are refused."""
    origin_batches: int = 64
    """Batches of one origin that may wait to be ordered."""
    origin_bytes: int = 33_554_432
    """Bytes of one origin that may wait to be ordered."""
    execution_lag: int = 192
    """Decided positions that may wait to be executed; beyond it clients are refused."""
    fetch_retry_ms: int = 150
    """Wait before a missing body is asked for elsewhere."""
    progress_ms: int = 250
    """Wait after the last commit before peers are told, and while they differ."""
    sync_grace_ms: int = 150
    """Wait before a peer that is ahead is asked for what it has."""
    sync_entries: int = 64
    """Decided positions in one answer."""
    snapshot_positions: int = 2048
    """Positions after which a snapshot is taken at the next checkpoint."""
    snapshot_bytes: int = 134_217_728
    """Bytes of bodies after which a snapshot is taken at the next checkpoint."""
    snapshot_chunk_bytes: int = 524_288
    """Bytes of a state that are asked for at once, at most 1 MiB; a line must carry them in `8 * sync_grace_ms`."""


class ReplicaSettings:
    """One replica's place in one epoch; ValueError where its members' weights would let the engine stop for good."""

    def __init__(
        self, own: ReplicaIndex, spec: EngineSpec, genesis: Genesis, options: Any, tuning: ReplicaTuning | None = None
    ) -> None:
        self.own = own
        self.spec = spec
        self.genesis = genesis
        self.tuning = tuning or ReplicaTuning()
        self.membership: Membership = genesis.config.membership()
        problem = spec.leaders_problem(self.membership, options)
        if problem is not None:
            raise ValueError(problem)
        self.limits = genesis.config.limits
        self.domain = genesis.domain()
        self.epoch = genesis.config.epoch
        self.context = EngineContext(own, self.membership, options, self.limits)
        self.window = spec.window(self.context)
        """Positions above the newest stable checkpoint that the engine may vote for."""

    @property
    def others(self) -> tuple[ReplicaIndex, ...]:
        """List the other members."""
        return tuple(index for index in range(len(self.membership)) if index != self.own)
