"""What must hold at every moment of a simulated run, checked as it goes: only what just moved is looked at.

One object watches all members. The first broken rule ends the run with a `Violation`.
"""

from typing import TYPE_CHECKING, Any

from bftkit.core.batch import BatchRef, CommittedBatch
from bftkit.core.ids import ReplicaIndex
from bftkit.core.log import extend_log_root
from bftkit.core.statement import Statement
from bftkit.errors import BftkitError
from bftkit.replica.client_messages import AnyReply, Refusal, Reply, SessionOpened
from bftkit.replica.outputs import Execute, Report
from bftkit.replica.state_machine import StateMachine

if TYPE_CHECKING:
    from bftkit.testing.node import SimulatedNode

SIGNED_SLOTS_LIMIT = 20_000
"""Slots that one member may remember; far more than any window of a simulated group holds."""

GATE_LIMIT = 20_000
"""Outputs that may wait for the disk."""

HARMLESS_REJECTIONS = ("a batch beyond its origin's quota", "a snapshot: this replica is further already")
"""What one correct member may hold against another."""


class Violation(BftkitError):
    """A rule that must always hold was broken."""


class Checkers:
    """The invariants over all honest members of one run."""

    def __init__(self) -> None:
        self._submitted: set[bytes] = set()
        self._positions: dict[int, tuple[int, tuple[BatchRef, ...]]] = {}
        self._heights: dict[int, bytes] = {}
        self._log_roots: dict[int, bytes] = {}
        self._commands: dict[int, tuple[bytes, ...]] = {}
        self._results: dict[int, tuple[bytes, ...]] = {}
        self._height_of: dict[bytes, int] = {}
        self._roots: dict[int, tuple[bytes, bytes]] = {}
        self._replies: dict[tuple[Any, ...], AnyReply] = {}
        self._signed: dict[tuple[ReplicaIndex, tuple[str, int, int]], bytes] = {}
        self._executing: dict[ReplicaIndex, tuple[int, int]] = {}
        self.commits = 0
        """Positions with batches that were decided."""
        self.commands = 0
        """Commands that were executed, each counted once."""

    # -- clients ----------------------------------------------------------------------------------

    def submitted(self, command: bytes) -> None:
        """Note a command that a client is going to send; each is different."""
        self._submitted.add(command)

    def answered(self, member: ReplicaIndex, reply: AnyReply) -> None:
        """Compare one member's reply with those of the others to the same request."""
        match reply:
            case Reply():
                key: tuple[Any, ...] = (reply.session, reply.first, reply.count)
            case SessionOpened():
                key = (reply.nonce,)
            case _:
                return
        first = self._replies.setdefault(key, reply)
        if first != reply:
            raise Violation(f"n{member} answers {reply} where another answered {first}")

    def acknowledged(self, reply: AnyReply, commands: tuple[bytes, ...]) -> None:
        """Compare what a client takes for true with what was executed."""
        if isinstance(reply, Reply):
            for command in commands:
                if self._height_of.get(command) != reply.height:
                    raise Violation(f"{command!r} was acknowledged at height {reply.height}, and is not there")
        elif isinstance(reply, Refusal) and not reply.executed:
            for command in commands:
                if command in self._height_of:
                    raise Violation(f"{command!r} was refused for good, and was executed")

    # -- deciding and executing -------------------------------------------------------------------

    def executing(self, member: ReplicaIndex, execute: Execute) -> None:
        """Take one decided position of one member: equal everywhere, and without a gap."""
        position = execute.position
        mine = (execute.first_height, execute.refs)
        first = self._positions.get(position)
        if first is None:
            self._decide(execute)
        elif first != mine:
            raise Violation(f"n{member} decides {mine} at position {position} where another decided {first}")
        last = self._executing.get(member)
        if last is not None and (position != last[0] + 1 or execute.first_height != last[1]):
            raise Violation(f"n{member} executes position {position} at height {execute.first_height} after {last}")
        self._executing[member] = (position, execute.first_height + len(execute.refs))

    def _decide(self, execute: Execute) -> None:
        self._positions[execute.position] = (execute.first_height, execute.refs)
        self.commits += bool(execute.refs)
        for offset, ref in enumerate(execute.refs):
            height = execute.first_height + offset
            known = self._heights.setdefault(height, ref.digest)
            if known != ref.digest:
                raise Violation(f"two batches stand at height {height}")

    def restarted(self, member: ReplicaIndex) -> None:
        """Note that a member executes again from where its disk says, or goes on from a transferred state."""
        self._executing.pop(member, None)

    def applied(self, member: ReplicaIndex, batch: CommittedBatch, results: list[bytes]) -> None:
        """Take the commands of one height as one member executed them."""
        commands, outcome = tuple(batch.commands), tuple(results)
        known = self._commands.get(batch.height)
        if known is None:
            self._commands[batch.height] = commands
            self._results[batch.height] = outcome
            self.commands += len(commands)
            for command in commands:
                if command not in self._submitted:
                    raise Violation(f"{command!r} was executed and never submitted")
                earlier = self._height_of.setdefault(command, batch.height)
                if earlier != batch.height:
                    raise Violation(f"{command!r} was executed at heights {earlier} and {batch.height}")
            if len(set(commands)) != len(commands):
                raise Violation(f"a command was executed twice at height {batch.height}")
        elif known != commands:
            raise Violation(f"n{member} executes {commands} at height {batch.height} where another had {known}")
        elif self._results[batch.height] != outcome:
            raise Violation(f"n{member} has other results at height {batch.height} than another")

    def roots(self, member: ReplicaIndex, height: int, roots: tuple[bytes, bytes]) -> None:
        """Compare the roots of state and sessions after a height."""
        first = self._roots.setdefault(height, roots)
        if first != roots:
            raise Violation(f"n{member} has other roots at height {height} than another")

    def roots_at_position(self, member: ReplicaIndex, position: int, roots: tuple[bytes, bytes]) -> None:
        """Compare the roots that a member reports for a checkpoint."""
        first_height, refs = self._positions[position]
        self.roots(member, first_height + len(refs) - 1, roots)

    def log_root(self, member: ReplicaIndex, height: int, root: bytes) -> None:
        """Recompute the chain over all batches up to a height, and compare it with a member's."""
        top = max(self._log_roots, default=0)
        chain = self._log_roots.get(top, bytes(32))
        while top < height:
            top += 1
            if top not in self._heights:
                raise Violation(f"n{member} is at height {height}, and nobody executed {top}")
            chain = self._log_roots[top] = extend_log_root(chain, top, self._heights[top])
        if height and self._log_roots[height] != root:
            raise Violation(f"n{member} has another log root at height {height}")

    # -- signing and sending ----------------------------------------------------------------------

    def signs(self, member: ReplicaIndex, statement: Statement) -> None:
        """Note what a member signs: never two contents for one slot, whatever happened in between."""
        first = self._signed.setdefault((member, statement.slot), statement.content)
        if first != statement.content:
            raise Violation(f"n{member} signs two contents for {statement.slot}")

    def reported(self, member: ReplicaIndex, report: Report) -> None:
        """Judge what an honest member says of itself and others, all being honest."""
        if report.event in ("unsigned", "accused", "diverged"):
            raise Violation(f"n{member} reports {report.event!r}: {report.detail}")
        if report.event == "rejected" and report.detail not in HARMLESS_REJECTIONS:
            raise Violation(f"n{member} rejects what n{report.data} sent: {report.detail}")

    # -- after each step --------------------------------------------------------------------------

    def stepped(self, node: "SimulatedNode") -> None:
        """Look at the member that just moved: it must not forget to go on, and not grow beyond its bounds."""
        replica = node.replica
        if not node.has_plans and not replica.mempool.idle:
            raise Violation(f"n{node.index} has work that waits, and nothing that would wake it")
        if node.gate.depth > GATE_LIMIT:
            raise Violation(f"n{node.index} holds back {node.gate.depth} outputs")
        if len(replica.guard) > SIGNED_SLOTS_LIMIT:
            raise Violation(f"n{node.index} remembers {len(replica.guard)} signed slots")


class WatchedMachine:
    """A state machine that tells the checkers what it executes."""

    def __init__(self, machine: StateMachine, checkers: Checkers, member: ReplicaIndex) -> None:
        self._machine = machine
        self._checkers = checkers
        self._member = member
        self.snapshot = machine.snapshot
        self.restore = machine.restore
        if hasattr(machine, "state_root"):
            self.state_root = machine.state_root

    def apply(self, batch: CommittedBatch) -> list[bytes]:
        """Execute a batch and report it."""
        results = self._machine.apply(batch)
        self._checkers.applied(self._member, batch, results)
        return results
