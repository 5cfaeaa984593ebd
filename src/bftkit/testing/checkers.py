"""What must hold at every moment of a simulated run, checked as it goes: only what just moved is looked at.

One object watches all members. The first broken rule ends the run with a `Violation`.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bftkit.core.batch import BatchRef, CommittedBatch
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.log import extend_log_root
from bftkit.core.statement import Statement, statement_bytes
from bftkit.errors import BftkitError
from bftkit.replica.client_messages import AnyReply, ReadReply, Refusal, Reply, SessionId, SessionOpened
from bftkit.replica.dissemination import BEYOND_QUOTA
from bftkit.replica.outputs import Execute, Report
from bftkit.replica.settings import ReplicaSettings
from bftkit.replica.state_machine import StateMachine
from bftkit.runtime.client_edge import UNCHECKABLE
from bftkit.testing.bounds import Bounds
from bftkit.testing.engine_watch import EngineWatch
from bftkit.testing.idleness import Idleness
from bftkit.testing.invariants import EngineInvariants
from bftkit.testing.machine_beside import MachineBeside

if TYPE_CHECKING:
    from bftkit.testing.node import SimulatedNode

WAKE_AGAIN = 7
"""Forgotten work is looked for every so many steps, and at once where nothing else would make the member move."""

MEASURE_AGAIN = 61
"""Tables are measured every so many steps: no multiple of anything, so that it is every member's turn."""

HARMLESS_REJECTIONS = (BEYOND_QUOTA, "a snapshot: this replica is further already")
"""What one correct member may hold against another."""


class Violation(BftkitError):
    """A rule that must always hold was broken."""


class Checkers:
    """The invariants over all honest members of one run.

    `beside` is a state machine of its own, which executes the one order beside the members, or what knows one;
    `settings` are those of any member, `verify` checks signatures; without them what needs them is not checked.
    """

    def __init__(
        self,
        beside: StateMachine | MachineBeside | None = None,
        invariants: EngineInvariants | None = None,
        settings: ReplicaSettings | None = None,
        verify: Callable[[bytes, bytes, bytes], bool] | None = None,
    ) -> None:
        self._beside = beside if beside is None or isinstance(beside, MachineBeside) else MachineBeside(beside)
        self.told_height = 0
        """Highest height that any client has been told of."""
        self._idleness = Idleness(invariants)
        self._watch = None if invariants is None else EngineWatch(invariants)
        self._settings = settings
        self._verify = verify
        self._bounds = None if settings is None else Bounds(settings)
        self.suspects: dict[ReplicaIndex, str] = {}
        """Members that may break rules, and why: liars, and those whose disk was damaged."""
        self.robbed: dict[ReplicaIndex, str] = {}
        """Members that keep to the rules, but may find an older state on their disk than they had saved, and why."""
        self._submitted: dict[bytes, tuple[SessionId, int] | None] = {}
        """Each command that a client has made, with the session and the sequence that it gave it."""
        self._executed: dict[tuple[SessionId, int], bytes] = {}
        """For each session and sequence, the one command that was executed under it."""
        self._verdicts: dict[tuple[bytes, ...], str] = {}
        """What was said of the commands of a request before they were ordered; empty where they were taken."""
        self._refused: set[bytes] = set()
        """Commands that a client was told will never be executed."""
        self._nonces: set[bytes] = set()
        """Of the sessions that clients asked for."""
        self._sessions: dict[SessionId, bytes] = {}
        """For each session that was opened, its nonce."""
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
        self._bodies: dict[bytes, int] = {}
        """For each batch, a bit mask of the members on whose disk it has been."""
        self._appended: dict[ReplicaIndex, list[tuple[int, bytes]]] = {}
        self._reached: dict[ReplicaIndex, tuple[int, int]] = {}
        """For each member in this life, the last decided position and the height of its state."""
        self._recorded: dict[ReplicaIndex, tuple[int, int]] = {}
        """For each member, the last decided position and the stable one, as far as they are on its disk."""
        self._taken_over: dict[ReplicaIndex, int] = {}
        """For each member in this life, the position of the state that it took over last."""
        self._saved: dict[ReplicaIndex, int] = {}
        """For each member, the height of the newest state on its disk."""
        self._steps = 0
        self.commits = 0
        """Positions with batches that were decided."""
        self.commands = 0
        """Commands that were executed, each counted once."""

    # -- clients ----------------------------------------------------------------------------------

    def submitted(self, command: bytes, session: SessionId | None = None, sequence: int = 0) -> None:
        """Note a command that a client is going to send; each is different.

        Of all commands under one sequence of one session at most one is executed; without a session only the command
        itself counts.
        """
        self._submitted[command] = None if session is None else (session, sequence)

    def checked(self, member: ReplicaIndex, commands: tuple[bytes, ...], problem: str) -> None:
        """Compare what members' machines say of commands before they are ordered: it is up to the commands alone."""
        if problem.startswith(UNCHECKABLE):
            raise Violation(f"n{member} cannot check {commands!r}: {problem}")
        first = self._verdicts.setdefault(commands, problem)
        if first != problem:
            raise Violation(f"n{member} says {problem!r} to {commands!r} where another said {first!r}")

    def asks_for_session(self, nonce: bytes) -> None:
        """Note that a client asks for a session."""
        self._nonces.add(nonce)

    def answered(self, member: ReplicaIndex, reply: AnyReply) -> None:
        """Compare one member's reply with those of the others to the same request."""
        match reply:
            case Reply():
                key: tuple[Any, ...] = (reply.session, reply.first, reply.count)
            case SessionOpened():
                self._compare_session(member, reply)
                return
            case ReadReply():
                key = (reply.nonce, reply.height)
            case _:
                return
        first = self._replies.setdefault(key, reply)
        if first != reply:
            raise Violation(f"n{member} answers {reply} where another answered {first}")

    def _compare_session(self, member: ReplicaIndex, reply: SessionOpened) -> None:
        """See that a session was asked for, and is the one that was opened unless there were too many to keep it."""
        if reply.nonce not in self._nonces:
            raise Violation(f"n{member} opens session {reply.session}, for which nobody has asked")
        nonce = self._sessions.setdefault(reply.session, reply.nonce)
        if nonce != reply.nonce:
            raise Violation(f"n{member} opens session {reply.session} for two clients")
        first = self._replies.setdefault((nonce,), reply)
        gone = self._settings is not None and len(self._sessions) > self._settings.limits.max_sessions
        if first != reply and not gone:
            raise Violation(f"n{member} answers {reply} where another answered {first}")

    def acknowledged(self, reply: AnyReply, versions: tuple[tuple[bytes, ...], ...]) -> None:
        """Compare what a client takes for true with what was executed.

        `versions` are the commands that it sent under these sequences: one, unless it is two-faced.
        """
        if isinstance(reply, Reply):
            executed = [commands for commands in versions if self._height_of.get(commands[0]) == reply.height]
            if len(executed) != 1:
                raise Violation(f"{versions!r} was acknowledged at height {reply.height}, and is not there")
            self._compare_results(reply, executed[0])
            self._compare_places(reply, executed[0])
            self._expect_durable(reply.height)
            self.told(reply.height)
        elif isinstance(reply, Refusal) and not reply.executed:
            for command in (command for commands in versions for command in commands):
                if command in self._height_of:
                    raise Violation(f"{command!r} was refused for good, and was executed")
                self._refused.add(command)
        elif isinstance(reply, Refusal):
            for commands in versions:
                for command, place in ((command, self._submitted.get(command)) for command in commands):
                    if place is not None and place not in self._executed:
                        raise Violation(f"{command!r} is said to be executed, and nothing was under its sequence")
        elif isinstance(reply, SessionOpened):
            if self._sessions.get(reply.session) != reply.nonce:
                raise Violation(f"a client takes {reply} for true, and no honest member has opened that session")
            self.told(reply.session[0])

    def _compare_places(self, reply: Reply, commands: tuple[bytes, ...]) -> None:
        """See that a reply is about the sequences that its client gave these commands."""
        places = [self._submitted.get(command) for command in commands]
        if any(
            place not in (None, (reply.session, reply.first + offset)) for offset, place in enumerate(places)
        ) or reply.count != len(commands):
            raise Violation(f"{commands!r} were sent as {places}, and are answered by {reply}")

    def told(self, height: int) -> None:
        """Note that a client knows of a height: whoever reads from now on must see it."""
        self.told_height = max(self.told_height, height)

    def read(self, request: bytes, answer: bytes, height: int, floor: int) -> None:
        """Judge the answer to a read that was called when clients had been told of heights up to `floor`."""
        if height < floor:
            raise Violation(f"a read sees height {height}, and a client knew of {floor} before it was called")
        if self._beside is not None:
            expected, whole = self._beside.expected_answer(request, height)
            if answer != expected if whole else not answer.startswith(expected):
                raise Violation(f"a read at height {height} has another answer than the state after it")
        if height:
            self._expect_durable(height)
        self.told(height)

    def _compare_results(self, reply: Reply, commands: tuple[bytes, ...]) -> None:
        """See that all commands stand together at the height, with these results."""
        held = self._commands[reply.height]
        first = held.index(commands[0])
        if held[first : first + len(commands)] != commands:
            raise Violation(f"{commands!r} were acknowledged together at height {reply.height}, and are not together")
        if self._results[reply.height][first : first + len(commands)] != reply.results:
            raise Violation(f"{commands!r} at height {reply.height} have other results than their client was told")

    def _expect_durable(self, height: int) -> None:
        """See that a quorum holds what a client was told, on its disks or in its state (less those who may lie)."""
        if self._settings is None:
            return
        if height not in self._heights:
            raise Violation(f"height {height} was acknowledged, and nobody decided it")
        quorum = self._settings.membership.quorum.quorum
        mask = self._bodies.get(self._heights[height], 0)
        unreliable = {**self.suspects, **self.robbed}
        holders = sum(
            1
            for member in range(len(self._settings.membership))
            if member not in unreliable and (mask >> member & 1 or self._saved.get(member, 0) >= height)
        )
        if holders < quorum - len(unreliable):
            raise Violation(f"height {height} was acknowledged, and only {holders} honest members hold it")

    # -- deciding and executing -------------------------------------------------------------------

    def executing(self, member: ReplicaIndex, execute: Execute) -> None:
        """Take one decided position of one member: equal everywhere, and without a gap."""
        position = execute.position
        mine = (execute.first_height, execute.refs)
        if execute.certificate is not None:
            self._prove(member, execute.certificate, f"a decision at position {position}")
            if self._watch is not None and self._verify is not None:
                self._complain(member, self._watch.decided(position, execute.certificate))
        first = self._positions.get(position)
        if first is None:
            self._decide(execute)
        elif first != mine:
            raise Violation(f"n{member} decides {mine} at position {position} where another decided {first}")
        if position <= self._taken_over.get(member, 0):
            return  # it waited for the disk until a state was taken over that holds its effect
        last = self._executing.get(member)
        if last is not None and (position != last[0] + 1 or execute.first_height != last[1]):
            raise Violation(f"n{member} executes position {position} at height {execute.first_height} after {last}")
        self._executing[member] = (position, execute.first_height + len(execute.refs))

    def _prove(self, member: ReplicaIndex, certificate: QuorumCertificate, what: str) -> None:
        """Look at the votes behind what a member goes by: enough of them, of distinct members, truly signed."""
        settings, verify = self._settings, self._verify
        if settings is None or verify is None:
            return
        signers = certificate.signers
        if len(signers) < settings.membership.quorum.quorum or len(signers) != len(certificate.signatures):
            raise Violation(f"n{member} takes {len(signers)} votes for {what}")
        signed = statement_bytes(settings.domain, certificate.statement)
        for signer, signature in zip(signers, certificate.signatures, strict=True):
            if not verify(settings.membership.public_key(signer), signed, signature):
                raise Violation(f"n{member} takes a vote that n{signer} never gave, for {what}")
            # What a signature covers is a promise of its own: that it is valid here proves nothing.
            signed_there = self._signed.get((signer, certificate.statement.slot))
            if signer not in self.suspects and signed_there != certificate.statement.content:
                raise Violation(f"n{member} takes a vote of n{signer} for what it never voted for, for {what}")

    def _prove_checkpoint(self, member: ReplicaIndex, proof: CheckpointCertificate) -> None:
        """Look at a checkpoint that a member forgets by, or whose state it has taken over."""
        checkpoint = proof.checkpoint
        what = f"a checkpoint at position {checkpoint.position}"
        if proof.certificate is None or not proof.is_about_its_checkpoint():
            raise Violation(f"n{member} takes {what} without its certificate")
        self._prove(member, proof.certificate, what)
        self.roots(member, checkpoint.height, (checkpoint.state_root, checkpoint.sessions_root))
        self.log_root(member, checkpoint.height, checkpoint.log_root)

    def _complain(self, member: ReplicaIndex, problem: str | None) -> None:
        if problem is not None:
            raise Violation(f"n{member}: {problem}")

    def _decide(self, execute: Execute) -> None:
        self._positions[execute.position] = (execute.first_height, execute.refs)
        self.commits += bool(execute.refs)
        if self._bounds is not None:
            self._bounds.widest = max(self._bounds.widest, len(execute.refs))
        for offset, ref in enumerate(execute.refs):
            height = execute.first_height + offset
            known = self._heights.setdefault(height, ref.digest)
            if known != ref.digest:
                raise Violation(f"two batches stand at height {height}")

    def restarted(self, member: ReplicaIndex, taken_over: int = 0) -> None:
        """Note that a member executes again from where its disk says, or goes on from a state at a position."""
        self._executing.pop(member, None)
        self._reached.pop(member, None)
        self._taken_over[member] = taken_over

    def lost_memory(self, member: ReplicaIndex) -> None:
        """Note that a member begins another life: what was not durable is gone."""
        self.restarted(member)
        self._appended.pop(member, None)
        if self._watch is not None:
            self._watch.restarted(member)

    def applied(self, member: ReplicaIndex, batch: CommittedBatch, bare: CommittedBatch, results: list[bytes]) -> None:
        """Take the commands of one height as one member executed them; `bare` is what its state machine saw."""
        commands, outcome = tuple(batch.commands), tuple(results)
        known = self._commands.get(batch.height)
        if known is None:
            self._commands[batch.height] = commands
            self._results[batch.height] = outcome
            self.commands += len(commands)
            for command in commands:
                self._execute_once(command, batch.height)
            if len(set(commands)) != len(commands):
                raise Violation(f"a command was executed twice at height {batch.height}")
            self._execute_beside(member, bare, results)
        elif known != commands:
            raise Violation(f"n{member} executes {commands} at height {batch.height} where another had {known}")
        elif self._results[batch.height] != outcome:
            raise Violation(f"n{member} has other results at height {batch.height} than another")

    def _execute_once(self, command: bytes, height: int) -> None:
        """See that a command was submitted, and is the only one of its sequence, executed at one height only."""
        if command not in self._submitted:
            raise Violation(f"{command!r} was executed and never submitted")
        earlier = self._height_of.setdefault(command, height)
        if earlier != height:
            raise Violation(f"{command!r} was executed at heights {earlier} and {height}")
        if command in self._refused:
            raise Violation(f"{command!r} is executed at height {height}, and was refused for good")
        place = self._submitted[command]
        if place is not None:
            other = self._executed.setdefault(place, command)
            if other != command:
                raise Violation(f"{other!r} and {command!r} were both executed as sequence {place[1]} of {place[0]}")

    def _execute_beside(self, member: ReplicaIndex, bare: CommittedBatch, results: list[bytes]) -> None:
        """Execute the one order on a machine of our own: the state is a function of the log and of nothing else."""
        if self._beside is None:
            return
        if bare.height <= self._beside.height:
            raise Violation(f"n{member} executes height {bare.height} after {self._beside.height}")
        if self._beside.execute(bare) != results:
            raise Violation(f"n{member} has other results at height {bare.height} than another run of the same log")

    def roots(self, member: ReplicaIndex, height: int, roots: tuple[bytes, bytes]) -> None:
        """Compare the roots of state and sessions after a height, the state's with another run of the log too."""
        first = self._roots.setdefault(height, roots)
        if first != roots:
            raise Violation(f"n{member} has other roots at height {height} than another")
        if self._beside is not None and self._beside.root_at(height) != roots[0]:
            raise Violation(f"n{member} has another state at height {height} than another run of the same log")

    def roots_at_position(self, member: ReplicaIndex, position: int, roots: tuple[bytes, bytes]) -> None:
        """Compare the roots that a member reports for a checkpoint."""
        first_height, refs = self._positions[position]
        self.roots(member, first_height + len(refs) - 1, roots)

    def log_root(self, member: ReplicaIndex, height: int, root: bytes) -> None:
        """Recompute the chain over all batches up to a height, and compare it with a member's."""
        top = len(self._log_roots)
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
        if self._watch is not None:
            self._complain(member, self._watch.signs(member, statement))

    def reported(self, member: ReplicaIndex, report: Report) -> None:
        """Judge what an honest member says of itself and others: nothing bad of an honest one."""
        if type(report.data) is CheckpointCertificate:
            self._prove_checkpoint(member, report.data)
        if report.event in ("unsigned", "diverged"):
            raise Violation(f"n{member} reports {report.event!r}: {report.detail}")
        if report.event == "accused" and report.data.signer not in self.suspects:
            raise Violation(f"n{member} accuses n{report.data.signer}, who is honest: {report.detail}")
        if report.event == "rejected" and report.detail not in HARMLESS_REJECTIONS:
            unknown = report.data is None and bool(self.suspects)
            if report.data not in self.suspects and not unknown:
                raise Violation(f"n{member} rejects what n{report.data} sent: {report.detail}")

    # -- what is on disk --------------------------------------------------------------------------

    def body_appended(self, member: ReplicaIndex, digest: bytes, index: int) -> None:
        """Note a body on its way to a member's disk."""
        self._appended.setdefault(member, []).append((index, digest))

    def durable(self, member: ReplicaIndex, index: int) -> None:
        """Note how far a member's log has reached its disk."""
        appended = self._appended.get(member)
        if appended:
            for at, digest in appended:
                if at <= index:
                    self.body_held(member, digest)
            self._appended[member] = [(at, digest) for at, digest in appended if at > index]

    def recorded(self, node: "SimulatedNode") -> None:
        """Note that everything which a member has decided and recorded by now is on its disk."""
        replica = node.replica
        self._recorded[node.index] = (replica.commits.position, replica.checkpoints.stable.position)
        if self._watch is not None:
            self._watch.recorded(node)

    def _begins(self, node: "SimulatedNode") -> None:
        """See that a member which starts, or takes over a state, knows what was on its disk."""
        if self._bounds is not None:
            self._bounds.begins(node)
        now = (node.replica.commits.position, node.replica.checkpoints.stable.position)
        recorded = self._recorded.get(node.index, (0, 0))
        unreliable = node.rotten or node.index in self.robbed
        if not unreliable and (now[0] < recorded[0] or now[1] < recorded[1]):
            raise Violation(f"n{node.index} begins at position {now[0]}, stable {now[1]}, and had recorded {recorded}")
        if self._watch is not None and not node.rotten:
            self._complain(node.index, self._watch.begins(node))

    def bodies_found(self, member: ReplicaIndex, digests: Iterable[bytes]) -> None:
        """Note which bodies a member finds on its disk when it starts: those, and no others."""
        for digest in self._bodies:
            self._bodies[digest] &= ~(1 << member)
        for digest in digests:
            self.body_held(member, digest)

    def state_saved(self, member: ReplicaIndex, height: int) -> None:
        """Note that a state is on a member's disk."""
        self._saved[member] = max(height, self._saved.get(member, 0))

    def state_found(self, member: ReplicaIndex, height: int) -> None:
        """Note which state a member finds when it starts: none older than one that it had saved."""
        unreliable = member in self.suspects or member in self.robbed
        if not unreliable and height < self._saved.get(member, 0):
            raise Violation(f"n{member} starts at height {height}, and had saved {self._saved[member]}")
        self._saved[member] = height

    def body_held(self, member: ReplicaIndex, digest: bytes) -> None:
        """Note a body that is on a member's disk."""
        self._bodies[digest] = self._bodies.get(digest, 0) | 1 << member

    # -- after each step --------------------------------------------------------------------------

    def stepped(self, node: "SimulatedNode") -> None:
        """Look at the member that just moved: it must not forget to go on, go back, or grow beyond its bounds."""
        member, replica = node.index, node.replica
        commits, height = replica.commits, node.executor.height
        before = self._reached.get(member)
        if before is None:
            self._begins(node)
        self._steps += 1
        if self._steps % WAKE_AGAIN == 0 or node.is_still:
            forgotten = self._idleness.problem(node)
            if forgotten is not None:
                raise Violation(f"n{member} has {forgotten}")
        now = self._reached[member] = (commits.position, height)
        if before is not None and (now[0] < before[0] or now[1] < before[1]):
            raise Violation(f"n{member} goes back from {before} to {now}")
        if height > commits.height or not commits.executed <= commits.executing <= commits.position:
            raise Violation(f"n{member} has executed what is not decided: height {height} of {commits.height}")
        if self._watch is not None and not node.rotten:
            self._complain(member, self._watch.stepped(node))
        if self._steps % MEASURE_AGAIN == 0 and self._bounds is not None:
            problem = self._bounds.problem(node)
            if problem is not None:
                raise Violation(f"n{member} keeps {problem}")
