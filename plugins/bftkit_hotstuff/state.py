"""The one place that lists what a HotStuff replica remembers.

Invariants, each kept by every handler:

* `round` is one more than the newest of `high_qc` and `tc`: it rises by certificates only, never by a clock.
* `voted_round` never falls, also across restarts; no vote and no proposal is made in it or below. Giving up a round
  raises it, so that nobody votes in a round after its TIMEOUT.
* `high_qc` never falls, and is not older than the one in any block that was voted for, or in any TIMEOUT that was sent.
* `tree.committed` rises by one with each `Commit`, or jumps with `Synced`.
* A batch that is here and not committed is in `pending`, also while blocks name it: an orphaned block loses none.
"""

from dataclasses import dataclass, field

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.ids import ReplicaIndex
from bftkit.core.pending import PendingBatches
from bftkit.core.quorum import Quorum
from bftkit.core.votes import VoteTally
from bftkit_hotstuff.block_tree import BlockTree, Node
from bftkit_hotstuff.certificates import SCHEMES, CertificateScheme
from bftkit_hotstuff.check import MAX_LINKS, window_length
from bftkit_hotstuff.config import HotStuffOptions
from bftkit_hotstuff.messages import GENESIS_QC, GaveUp, Past, Timeout, TimeoutCertificate, block_of
from bftkit_hotstuff.rules import RULES, Rules, on_the_newest

LONG_AGO_MS = 1 << 40
"""Longer ago than any delay: "never yet"."""

BLOCKS_PER_DOUBLING = 32
"""The timeout doubles with each so many blocks that wait for a decision."""


@dataclass(slots=True)
class Watched:
    """A batch that is here and not committed: somebody must see to it that it gets ordered."""

    ref: BatchRef
    arrived: int
    offered: int = 0
    """Bit mask of the members that were offered it."""


@dataclass(slots=True)
class Wanted:
    """A certified block that is not here."""

    sources: list[ReplicaIndex]
    """Whom to ask, its voters first."""
    asked: int = 0


@dataclass(slots=True)
class State:
    """All variables of one replica in one epoch."""

    context: EngineContext
    options: HotStuffOptions
    rules: Rules
    scheme: CertificateScheme
    quorum: Quorum
    stable: CheckpointCertificate
    tree: BlockTree
    pending: PendingBatches
    """Batches that are here and not committed."""
    timeouts: list[Timeout | None]
    """For each member its TIMEOUT for the highest round."""
    answered_at: list[int]
    """For each member, when it was last told what the own round rests on."""
    history: list[Past] = field(default_factory=list)
    """What leaders are judged by: the latest committed blocks, without a gap up to `tree.committed`, or none."""

    now: int = 0
    """Time of the input being handled, in milliseconds."""
    round: int = 1
    entered_at: int = 0
    """When this round was entered."""
    voted_round: int = 0
    """The highest round that was voted in or given up."""
    voted_block: bytes = b""
    """Id of the block that was voted for last."""
    voted_tc: TimeoutCertificate | None = None
    """What came with it, to say why its round has begun."""
    gave_up: GaveUp | None = None
    """The last round that was given up, and with which words."""
    own_timeout: Timeout | None = None
    """The TIMEOUT that says so, signed, once it has come back."""
    timeout_said: int = 0
    """The last round whose TIMEOUT was said since this replica started."""
    high_qc: QuorumCertificate = GENESIS_QC
    """The newest QC that is known (qc_high of the paper)."""
    tc: TimeoutCertificate | None = None
    """The newest TC, while it is not older than the newest QC."""
    lock: QuorumCertificate | None = None
    """QC of the locked block, where the rules know a lock."""
    proposal: Node | None = None
    """The block that was proposed in this round, if it is here."""
    votes: dict[int, VoteTally] = field(default_factory=dict)
    """Votes by round, of the last round and of the next few."""
    unannounced: bool = False
    """Whether `high_qc` was made here, and nobody has been told."""
    accused: dict[tuple[ReplicaIndex, str, int], None] = field(default_factory=dict)
    """Members, kinds and rounds of the contradictions that were reported lately."""
    watched: dict[bytes, Watched] = field(default_factory=dict)
    """What is pending, in order of arrival."""
    wanted: dict[bytes, Wanted] = field(default_factory=dict)
    """Certified blocks that are being fetched."""
    failures: int = 0
    """Rounds that were given up since the last commit."""
    expecting_since: int | None = None
    """Since when the end of this round is waited for; None while it may take as long as it likes."""
    retransmissions: int = 0
    """How often this round's words were repeated."""
    behind_reported: int = 0
    """Highest position for which catching up was asked."""
    behind_reported_at: int = -LONG_AGO_MS
    """When that was."""
    armed: dict[str, int] = field(default_factory=dict)
    """Running timers, and when they fire."""
    sealed: int | None = None
    """Where the epoch ends, once that is known."""

    # --- Names of the paper ---

    @property
    def own(self) -> ReplicaIndex:
        """Return the own index."""
        return self.context.own

    @property
    def committed(self) -> int:
        """Return the height up to which everything is committed."""
        return self.tree.committed

    @property
    def vote_limit(self) -> int:
        """Return the last height that may be voted for with batches in it."""
        return self.tree.low + window_length(self.context)

    @property
    def branch_limit(self) -> int:
        """Return the last height that may be voted for at all: a decision there has as long a proof as may be."""
        return self.tree.committed + MAX_LINKS

    @property
    def longest_branch(self) -> int:
        """Return how many certified blocks others may have above what is committed here, and still keep."""
        return window_length(self.context) + MAX_LINKS

    @property
    def entry_tc(self) -> TimeoutCertificate | None:
        """Return the TC that says why this round follows the newest QC, where one is needed."""
        return on_the_newest(self.round, self.high_qc, self.tc)[1]

    @property
    def has_given_up(self) -> bool:
        """Say whether this round was given up."""
        return self.gave_up is not None and self.gave_up.round == self.round

    @property
    def others(self) -> tuple[ReplicaIndex, ...]:
        """List the other members, those after the own place first."""
        members = self.quorum.members
        return tuple((self.own + step) % members for step in range(1, members))

    @property
    def timeout_ms(self) -> int:
        """Return how long to wait in this round: half as long again for each round that failed since the last commit.

        The cap is harmless, since rounds advance by certificates only. Where a block is certified now and then, but no
        chain decides, it doubles with every `BLOCKS_PER_DOUBLING` blocks: so what waits for a decision grows with the
        logarithm of the time that this lasts, and a dead leader costs but a small part of that time afterwards.
        """
        timeout = self.options.view_timeout_ms
        for _ in range(min(self.failures, 16)):
            timeout += timeout // 2
        doublings = self.tree.undecided(block_of(self.high_qc)) // BLOCKS_PER_DOUBLING
        return min(timeout, self.options.longest_timeout_ms) << doublings


def initial_state(context: EngineContext, checkpoint: CheckpointCertificate) -> State:
    """Return the state of a replica that has persisted nothing since a checkpoint."""
    options: HotStuffOptions = context.options
    members = len(context.membership)
    return State(
        context=context,
        options=options,
        rules=RULES[options.rules],
        scheme=SCHEMES[options.certificates],
        quorum=context.membership.quorum,
        stable=checkpoint,
        tree=BlockTree(checkpoint.position),
        pending=PendingBatches(members),
        timeouts=[None] * members,
        answered_at=[-LONG_AGO_MS] * members,
    )
