"""The blocks that are known above the stable checkpoint: a tree, and the branch of it that is committed.

Invariants: all blocks are above `low`; `decided` names committed ones only, and the block of a height that is not
named there may still be one; of the blocks above `committed` none is known to be on another branch than `tip`; at most
`MAX_ASIDE` of them are aside from the branch of the newest QC, which is never cut: its blocks may be on no other branch
anywhere, and what stands on it can be decided only while they are here. No vote makes it longer than the proof of a
decision may be, see `State.branch_limit`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from bftkit.core.batch import BatchRef
from bftkit_hotstuff.messages import GENESIS, Block, Header, Proposal

MAX_ASIDE = 1_000
"""Uncommitted blocks aside from the newest branch that are kept; the oldest go first, and can be fetched again."""


@dataclass(slots=True)
class Node:
    """A block in the tree."""

    id: bytes
    header: Header
    block: Block
    proposal: Proposal | None = None
    """What proposed it; signed, unless it is the own one and has not come back yet."""
    missing: dict[bytes, BatchRef] = field(default_factory=dict)
    """Batches whose bodies are not here: until they are, there is no vote."""

    @property
    def round(self) -> int:
        """Return the block's round."""
        return self.header.round

    @property
    def height(self) -> int:
        """Return the block's height."""
        return self.header.height


class BlockTree:
    """Blocks by id."""

    __slots__ = ("_open", "anchor", "committed", "decided", "low", "nodes", "tip")

    def __init__(self, low: int) -> None:
        self.low = low
        """Height of the stable checkpoint: blocks there and below are gone."""
        self.anchor: Header | None = GENESIS if low == 0 else None
        """The block at `low`, where it is known."""
        self.committed = low
        """Height up to which everything is committed, or learnt to be."""
        self.tip: Header | None = self.anchor
        """The block at `committed`, where it is known: a transferred state does not tell it."""
        self.nodes: dict[bytes, Node] = {}
        self._open: dict[bytes, Node] = {}
        """Those of them that are not committed."""
        self.decided: dict[int, bytes] = {}
        """Ids of committed blocks by height, as far as they are known."""

    def get(self, block: bytes) -> Node | None:
        """Return a block that is here."""
        return self.nodes.get(block)

    def header(self, block: bytes) -> Header | None:
        """Return the header of a block that is known, be it the one that everything here is built on."""
        node = self.nodes.get(block)
        if node is not None:
            return node.header
        return next((one for one in (self.tip, self.anchor) if one is not None and one.id == block), None)

    def add(self, block: Block) -> Node:
        """Put a block into the tree, unless it is there; return its node."""
        header = block.header()
        name = header.id
        node = self.nodes.get(name)
        if node is None:
            node = self.nodes[name] = self._open[name] = Node(name, header, block)
        return node

    def parent(self, node: Node) -> Node | None:
        """Return the block that another one is built on, where it is here."""
        return self.nodes.get(node.header.parent)

    def branch(self, block: bytes) -> Iterator[Node]:
        """Go from a block down through its ancestors, as far as they are here and not committed."""
        node = self.nodes.get(block)
        while node is not None and node.height > self.committed:
            yield node
            node = self.nodes.get(node.header.parent)

    def is_joined(self, node: Node) -> bool:
        """Say whether a block stands on the committed branch directly.

        Where the tip is not known, any block at the next height may. That it really does is proved with its decision.
        """
        if node.height != self.committed + 1:
            return False
        return self.tip is None or node.header.parent == self.tip.id

    def commit(self, node: Node) -> None:
        """Take the next block of the committed branch."""
        self.committed, self.tip = node.height, node.header
        self.decided[node.height] = node.id

    def jump(self, height: int, tip: Header | None) -> None:
        """Move the committed height up to where others have proved it to be, with the block there if it is known."""
        self.committed, self.tip = height, tip
        self._open = dict(self.nodes)  # the next pruning is to look at all of them
        if tip is not None:
            self.decided[height] = tip.id
        node = self.nodes.get(tip.id) if tip is not None else None
        while node is not None and self.decided.get(node.height, node.id) == node.id:
            self.decided[node.height] = node.id
            node = self.nodes.get(node.header.parent)

    def learn_tip(self, tip: Header) -> None:
        """Take note of the block at the committed height, which was not known."""
        self.tip = tip
        if self.committed == self.low:
            self.anchor = tip
        else:
            self.decided[self.committed] = tip.id
        self.prune()

    def is_orphan(self, header: Header) -> bool:
        """Say whether a block is known not to be on the committed branch, nor to stand on it."""
        if header.height <= self.committed:
            return header.height <= self.low or self.decided.get(header.height, b"") not in (b"", header.id)
        return header.height == self.committed + 1 and self.tip is not None and header.parent != self.tip.id

    def prune(self) -> None:
        """Let go of the blocks that are known to be on another branch than the committed one, now that it has grown."""
        gone: dict[bytes, None] = {}
        for node in sorted(self._open.values(), key=lambda one: one.header.height):
            if self.is_orphan(node.header) or node.header.parent in gone:
                gone[node.id] = None
                del self.nodes[node.id]
            if node.header.height <= self.committed or node.id in gone:
                del self._open[node.id]

    def shrink(self, certified: bytes, proposed: bytes = b"") -> None:
        """Let go of the oldest blocks aside from the branch of a certified one, and from a proposal, if they are many.

        The branch stays whole, however long it is; where that block is not here yet, the branch of the newest one that
        others here are built on does.
        """
        if len(self._open) <= MAX_ASIDE:
            return
        if certified not in self._open:
            parents = (self._open.get(node.header.parent) for node in self._open.values())
            newest = max((node for node in parents if node is not None), key=lambda node: node.round, default=None)
            certified = newest.id if newest is not None else b""
        kept = {node.id for node in self.branch(certified)} | {proposed}
        aside = sorted((node for node in self._open.values() if node.id not in kept), key=lambda node: node.round)
        for node in aside[: max(0, len(aside) - MAX_ASIDE)]:
            del self.nodes[node.id]
            del self._open[node.id]

    def undecided(self, block: bytes) -> int:
        """Count the blocks from one down to the committed branch; 0 where some of them are missing."""
        branch = list(self.branch(block))
        return len(branch) if branch and self.is_joined(branch[-1]) else 0

    def forget_through(self, height: int) -> None:
        """Let go of everything up to a stable checkpoint; remember the block there, if it is known."""
        if height <= self.low:
            return
        known = self.nodes.get(self.decided.get(height, b""))
        if self.committed == height:
            self.anchor = self.tip
        else:
            self.anchor = known.header if known is not None else None
        self.low = height
        if self.committed < height:
            self.committed, self.tip = height, self.anchor
        self.nodes = {name: node for name, node in self.nodes.items() if node.height > height}
        self._open = {name: node for name, node in self._open.items() if node.height > height}
        self.decided = {at: name for at, name in self.decided.items() if at > height}
        self.prune()

    @property
    def uncommitted(self) -> int:
        """Count the blocks above the committed height."""
        return len(self._open)
