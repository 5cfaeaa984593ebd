"""What replicas do for engines, in an `EngineGroup`: logs, checkpoints, bodies, and catching up.

Nothing here is a message of its own. What a replica would tell others is simply known, as far as the group's
`deliverable` lets it pass, and after the time that it would be under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.core.ids import ZERO_DIGEST, ReplicaIndex, canonical
from bftkit.core.inputs import Available, Stable, Synced
from bftkit.core.log import CommitEntry, extend_log_root
from bftkit.core.outputs import Commit, Offer, Want
from bftkit.core.quorum import FaultModel
from bftkit.testing.checkers import Violation
from bftkit.testing.group_instance import Instance

if TYPE_CHECKING:
    from bftkit.testing.engine_group import EngineGroup

FETCH_AGAIN_MS = 100
"""How long to wait before a body that nobody had is looked for again."""


class GroupHosting:
    """What is decided, certified and held in one group. A decision that breaks a rule raises `Violation`."""

    def __init__(self, group: EngineGroup) -> None:
        self._group = group
        self.decided: dict[int, tuple[BatchRef, ...]] = {}
        """What honest instances have decided, by position."""
        self._votes: dict[int, dict[Checkpoint, list[ReplicaIndex]]] = {}
        self._certificates: dict[int, CheckpointCertificate] = {}

    # --- Decisions ---

    def check_commit(self, instance: Instance, output: Commit) -> CommitEntry | None:
        """Check a decision of an engine; return it as it is to be learnt, or None where it is known already."""
        position = output.position
        if position <= len(instance.log):
            if instance.log[position - 1].refs != output.refs:
                raise Violation(f"{instance.name} decides position {position} once more, and otherwise")
            return None
        if position != len(instance.log) + 1:
            raise Violation(f"{instance.name} commits position {position} after {len(instance.log)}")
        entry = CommitEntry(position, output.refs, output.proof)
        problem = self._proof_problem(instance, entry)
        if problem is not None:
            raise Violation(f"{instance.name} commits position {position} with a bad proof: {problem}")
        if instance.honest:
            self._compare(instance, entry)
        return entry

    def _compare(self, instance: Instance, entry: CommitEntry) -> None:
        first = self.decided.get(entry.position)
        if first is None:
            self.decided[entry.position] = entry.refs
            holders = sum(self._may_hold(who, entry.refs) for who in self._group.of_identity)
            if holders < self._group.quorum.quorum:
                raise Violation(f"position {entry.position} is decided, and {holders} members hold its bodies")
        elif first != entry.refs:
            mine, theirs = self._group.batches(entry.refs), self._group.batches(first)
            raise Violation(f"{instance.name} decides {mine} at position {entry.position}, another one {theirs}")

    def _may_hold(self, instances: list[Instance], refs: tuple[BatchRef, ...]) -> bool:
        return any(not one.honest or one.holds(refs) for one in instances)

    def _proof_problem(self, instance: Instance, entry: CommitEntry) -> str | None:
        problem = self._group.spec.commit_problem(instance.context, entry)
        if problem is not None:
            return problem
        certificate = entry.proof.certificate
        if certificate is None:
            crash = self._group.spec.fault_model is FaultModel.CRASH
            return None if crash else "a byzantine engine proves by certificates"
        forged = next((claim for claim in certificate.claims() if not self._group.signing.is_signed(claim)), None)
        return None if forged is None else f"n{forged.signer} has not signed it"

    def learn(self, instance: Instance, entry: CommitEntry) -> None:
        """Take a decided position into an instance's log, with its bodies, and vote for the checkpoint there."""
        instance.log.append(entry)
        for ref in entry.refs:
            instance.height += 1
            instance.log_root = extend_log_root(instance.log_root, instance.height, ref.digest)
            instance.bodies[ref.digest] = ref
            instance.decided[ref.digest] = entry.position
        if entry.position % instance.context.limits.checkpoint_interval == 0:
            self._vote(instance, entry.position)

    # --- Checkpoints ---

    def _vote(self, instance: Instance, position: int) -> None:
        checkpoint = Checkpoint(position, instance.height, instance.log_root, ZERO_DIGEST, ZERO_DIGEST)
        certificate = self._certificates.get(position)
        if certificate is None:
            votes = self._votes.setdefault(position, {}).setdefault(checkpoint, [])
            if instance.identity not in votes:
                votes.append(instance.identity)
            if len(votes) < self._group.quorum.quorum:
                return
            certificate = self._certificates[position] = self.certify(checkpoint, votes)
            del self._votes[position]
            for one in self._group.instances:
                if one is not instance and len(one.log) >= position:
                    self._tell_stable(one, certificate)
        self._tell_stable(instance, certificate)

    def certify(self, checkpoint: Checkpoint, signers: list[ReplicaIndex]) -> CheckpointCertificate:
        """Make the certificate of a checkpoint, signed by these members."""
        statement = checkpoint.statement()
        signatures = {who: self._group.signing.signature(who, canonical(statement)) for who in signers}
        return CheckpointCertificate(checkpoint, QuorumCertificate.of(statement, signatures, self._group.members))

    def _tell_stable(self, instance: Instance, certificate: CheckpointCertificate) -> None:
        group = self._group
        signers = certificate.certificate.signers if certificate.certificate is not None else ()
        voters = [one for who in signers for one in group.of_identity[who]]
        if any(one is instance or group.passes(one, instance, certificate) for one in voters):
            group.after(group.delay(), self._now_stable, instance, certificate)

    def _now_stable(self, instance: Instance, certificate: CheckpointCertificate) -> None:
        if instance.alive and instance.stable.position < certificate.position <= len(instance.log):
            instance.stable = certificate
            instance.guard.stable(certificate.position)
            if self._group.traced:
                self._group.say(f"{instance.name} stable {certificate.position}")
            self._group.step(instance, Stable(self._group.now, certificate))

    # --- Bodies ---

    def arrive(self, instance: Instance, refs: tuple[BatchRef, ...]) -> None:
        """Make bodies durable at an instance, and tell its engine."""
        if instance.alive:
            for ref in refs:
                instance.bodies[ref.digest] = ref
                instance.asked.pop(ref.digest, None)
            for decided in (False, True):
                some = tuple(ref for ref in refs if (ref.digest in instance.decided) is decided)
                if some:
                    self._group.step(instance, Available(self._group.now, some, decided))

    def want(self, instance: Instance, output: Want) -> None:
        """Fetch bodies that the engine lacks; they are looked for until they are found."""
        first = any(ref.digest not in instance.asked for ref in output.refs)
        instance.asked.update((ref.digest, ref) for ref in output.refs)
        self._group.after(2 * self._group.delay(), self._fetch, instance, (output, first))

    def _fetch(self, instance: Instance, wanted: tuple[Want, bool]) -> None:
        output, again = wanted
        refs = tuple(ref for ref in output.refs if ref.digest in instance.asked)
        found = self._find(instance, output, refs)
        if found:
            self.arrive(instance, found)
        if again and instance.alive and any(ref.digest in instance.asked for ref in refs):
            everybody = Want(output.refs, tuple(range(self._group.members)))
            self._group.after(FETCH_AGAIN_MS, self._fetch, instance, (everybody, True))

    def offer(self, instance: Instance, output: Offer) -> None:
        """Tell a member of bodies that are here; it fetches those that it lacks and has not seen decided."""
        group = self._group
        for receiver in group.of_identity[output.to]:
            if receiver is not instance and group.passes(instance, receiver, output) and not group.is_lost():
                group.after_any_life(group.delay(), self._offered, receiver, (instance, output))

    def _offered(self, instance: Instance, offered: tuple[Instance, Offer]) -> None:
        sender, output = offered
        new = tuple(ref for ref in output.refs if ref.digest not in instance.bodies)
        if new and instance.alive:
            group = self._group
            if group.traced:
                group.say(f"{sender.name} offers {group.batches(new)} -> {instance.name}")
            group.after(2 * group.delay(), self._take_offered, instance, Want(new, (sender.identity,)))

    def _take_offered(self, instance: Instance, output: Want) -> None:
        found = self._find(instance, output, output.refs)
        new = tuple(ref for ref in found if ref.digest not in instance.decided)
        if new:
            self.arrive(instance, new)

    def _find(self, instance: Instance, output: Want, refs: tuple[BatchRef, ...]) -> tuple[BatchRef, ...]:
        """Return those of the bodies that are here or at a source that can be reached both ways."""
        group = self._group
        found = {ref.digest: ref for ref in refs if instance.bodies.get(ref.digest) == ref}
        for source in output.sources:
            for one in group.of_identity[source]:
                if len(found) == len(refs):
                    break
                if one.alive and group.passes(one, instance, output) and group.passes(instance, one, output):
                    found.update((ref.digest, one.bodies[ref.digest]) for ref in refs if ref.digest in one.bodies)
        return tuple(found.values())

    # --- Catching up ---

    def exchange(self, instance: Instance, _: Any = None) -> None:
        """Compare an instance's log with the longest one that it can reach, now and every so often."""
        if instance.alive:
            self.catch_up(instance, self._group.instances)
        period = self._group.settings.exchange_ms
        if instance.alive and period is not None:
            self._group.after(period, self.exchange, instance)

    def behind(self, instance: Instance, sources: tuple[ReplicaIndex, ...]) -> None:
        """Let an instance catch up that knows it has to."""
        if instance.alive:
            self.catch_up(instance, [one for who in sources for one in self._group.of_identity[who]])

    def catch_up(self, instance: Instance, peers: list[Instance]) -> None:
        """Copy what the peer with the longest log has decided, each position with its proof, and its checkpoint."""
        group = self._group
        best: Instance | None = None
        for peer in peers:
            longest = max(len(instance.log), len(best.log) if best is not None else 0)
            ahead = len(peer.log) > longest or (best is None and peer.stable.position > instance.stable.position)
            if ahead and peer.alive and group.passes(peer, instance, peer.log[-1]):
                best = peer
        if best is None or group.is_lost():
            return
        before = len(instance.log)
        for entry in best.log[before:]:
            if not best.honest and self._proof_problem(instance, entry) is not None:
                break
            if instance.honest:
                self._compare(instance, entry)
            self.learn(instance, entry)
        if len(instance.log) > before:
            refs = tuple(ref for entry in instance.log[before:] for ref in entry.refs)
            if group.traced:
                group.say(f"{instance.name} synced {len(instance.log)}")
            group.step(instance, Synced(group.now, len(instance.log), refs, instance.log[-1].proof))
        self._now_stable(instance, best.stable)
