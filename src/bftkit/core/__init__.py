"""The pure vocabulary of consensus and the contract of an engine.

Nothing in here does input or output, reads a clock, draws a random number or writes a log line.
"""

from bftkit.core.batch import BatchRef, CommittedBatch, batch_digest
from bftkit.core.certificate import QuorumCertificate, certificate_problem
from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.core.engine import ConsensusEngine, EngineContext, EngineSpec, EngineStatus, SigningRule
from bftkit.core.epoch import EpochConfig, Genesis
from bftkit.core.leaders import LeaderSchedule, RoundRobin
from bftkit.core.membership import Member, Membership
from bftkit.core.pending import PendingBatches
from bftkit.core.quorum import FaultModel, Quorum
from bftkit.core.statement import Claim, SignedMessage, Statement, statement_bytes
from bftkit.core.view_timer import ViewTimer
from bftkit.core.votes import Evidence, VoteTally

__all__ = [
    "BatchRef",
    "Checkpoint",
    "CheckpointCertificate",
    "Claim",
    "CommittedBatch",
    "ConsensusEngine",
    "EngineContext",
    "EngineSpec",
    "EngineStatus",
    "EpochConfig",
    "Evidence",
    "FaultModel",
    "Genesis",
    "LeaderSchedule",
    "Member",
    "Membership",
    "PendingBatches",
    "Quorum",
    "QuorumCertificate",
    "RoundRobin",
    "SignedMessage",
    "SigningRule",
    "Statement",
    "ViewTimer",
    "VoteTally",
    "batch_digest",
    "certificate_problem",
    "statement_bytes",
]
