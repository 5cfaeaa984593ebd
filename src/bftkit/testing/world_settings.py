"""What the members of a simulated group agree on before anything happens, and how each of them is tuned."""

from typing import Any

import msgspec

from bftkit.core.checkpoint import EMPTY_CHECKPOINT
from bftkit.core.engine import EngineSpec
from bftkit.core.epoch import EpochConfig, Genesis, Limits
from bftkit.core.ids import canonical
from bftkit.core.membership import Member
from bftkit.replica.settings import ReplicaSettings, ReplicaTuning
from bftkit.testing.client import longest
from bftkit.testing.profile import Profile
from bftkit.testing.signing import Signatures
from bftkit.testing.specs import expect_accepted

CLUSTER = "simulated"
"""Name of every simulated cluster."""


def every_settings(  # what a group consists of
    spec: EngineSpec, replicas: int, options: Any, limits: Limits, profile: Profile, signatures: Signatures
) -> list[ReplicaSettings]:
    """Return the settings of each member; ConfigurationError where the engine will not be built for so many.

    `limits` are those of the state machine's commands; where the profile draws smaller bounds, these hold.
    """
    limits = _limits(limits, profile)
    tuning = _tuning(profile, limits)
    genesis = _genesis(spec, replicas, options, limits, signatures)
    every = [ReplicaSettings(index, spec, genesis, options, tuning) for index in range(replicas)]
    expect_accepted(every[0])
    return every


def _genesis(spec: EngineSpec, replicas: int, options: Any, limits: Limits, signatures: Signatures) -> Genesis:
    members = tuple(Member(f"n{index:02}", signatures.public_key(f"member {index}")) for index in range(replicas))
    config = EpochConfig(
        cluster=CLUSTER,
        group=0,
        epoch=0,
        engine=spec.name,
        engine_version=spec.version,
        fault_model=spec.fault_model,
        options=canonical(options),
        members=members,
        limits=limits,
    )
    return Genesis(config, EMPTY_CHECKPOINT)


def _limits(limits: Limits, profile: Profile) -> Limits:
    drawn = {
        "checkpoint_interval": profile.checkpoint_interval,
        "max_sessions": profile.max_sessions,
        "session_window": profile.session_window,
        "session_reply_bytes": profile.session_reply_bytes,
    }
    return msgspec.structs.replace(limits, **{name: value for name, value in drawn.items() if value})


def _tuning(profile: Profile, limits: Limits) -> ReplicaTuning:
    small = {"origin_batches": profile.origin_batches, "collect_bytes": profile.collect_requests * longest(limits)}
    return ReplicaTuning(
        **{name: value for name, value in small.items() if value},
        batches_in_flight=2,
        max_batches_in_flight=6,
        sync_entries=8,
        snapshot_positions=profile.snapshot_positions,
        snapshot_chunk_bytes=256,
    )
