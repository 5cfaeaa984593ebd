"""Epochs: everything that members must agree on changes what they sign."""

import msgspec
import pytest

from bftkit.core.checkpoint import EMPTY_CHECKPOINT
from bftkit.core.epoch import EpochConfig, Genesis, Limits
from bftkit.core.membership import Member
from bftkit.core.quorum import FaultModel

MEMBERS = tuple(Member(f"n{index}", bytes([index]) * 32) for index in range(4))
CONFIG = EpochConfig("cluster", 0, 1, "pbft", "1", FaultModel.BYZANTINE, b"options", MEMBERS)
GENESIS = Genesis(CONFIG, EMPTY_CHECKPOINT)

CONFIG_CHANGES = [
    {"cluster": "another"},
    {"group": 1},
    {"epoch": 2},
    {"engine": "hotstuff"},
    {"engine_version": "2"},
    {"fault_model": FaultModel.CRASH},
    {"options": b"others"},
    {"members": MEMBERS[:3]},
    {"members": (*MEMBERS[:3], msgspec.structs.replace(MEMBERS[3], weight=2))},
    {"members": (*MEMBERS[:3], msgspec.structs.replace(MEMBERS[3], public_key=b"\xff" * 32))},
    {"limits": Limits(checkpoint_interval=64)},
]


@pytest.mark.parametrize("change", CONFIG_CHANGES, ids=lambda change: next(iter(change)))
def test_each_setting_changes_digest_and_domain(change):
    other = msgspec.structs.replace(CONFIG, **change)
    assert other.digest() != CONFIG.digest()
    assert Genesis(other, EMPTY_CHECKPOINT).domain() != GENESIS.domain()
    assert Genesis(other, EMPTY_CHECKPOINT).digest() != GENESIS.digest()


OTHER_STARTS = [
    msgspec.structs.replace(EMPTY_CHECKPOINT, height=9),
    msgspec.structs.replace(EMPTY_CHECKPOINT, log_root=b"\x01" * 32),
    msgspec.structs.replace(EMPTY_CHECKPOINT, state_root=b"\x01" * 32),
    msgspec.structs.replace(EMPTY_CHECKPOINT, sessions_root=b"\x01" * 32),
]


@pytest.mark.parametrize("change", [{"parent": b"\x01" * 32}, *({"start": start} for start in OTHER_STARTS)])
def test_each_part_of_the_start_changes_digest_and_domain(change):
    other = msgspec.structs.replace(GENESIS, **change)
    assert other.digest() != GENESIS.digest()
    assert other.domain() != GENESIS.domain()


def test_the_order_in_which_members_are_written_does_not_matter():
    other = msgspec.structs.replace(CONFIG, members=MEMBERS[::-1])
    assert other.digest() == CONFIG.digest()
    assert other.membership().members == CONFIG.membership().members
    assert Genesis(other, EMPTY_CHECKPOINT).domain() == GENESIS.domain()


def test_a_domain_is_as_long_as_a_digest():
    assert len(GENESIS.domain()) == 32
    assert GENESIS.domain() != GENESIS.digest()
