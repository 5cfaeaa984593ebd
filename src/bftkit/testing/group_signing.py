"""Who signs what in an `EngineGroup`: the guard of each instance, and signatures that nobody can forge."""

from typing import Any

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.core.ids import ReplicaIndex, canonical
from bftkit.core.membership import Membership
from bftkit.core.statement import Claim, SignedMessage
from bftkit.testing.checkers import Violation
from bftkit.testing.group_instance import Instance
from bftkit.testing.invariants import EngineInvariants
from bftkit.testing.signing import SignatureRegistry


class GroupSigning:
    """The keys of all members, and a memory of everything that was signed with them."""

    def __init__(self, spec: EngineSpec, membership: Membership, watch: EngineInvariants | None) -> None:
        self._spec = spec
        self._watch = watch
        self._registry = SignatureRegistry()
        self._keys = [member.public_key for member in membership.members]

    def admit(self, instance: Instance, message: SignedMessage) -> bool:
        """Say whether an instance may sign, as its replica would; a violation where an honest one must not."""
        statement = message.statement()
        problem = instance.guard.admit(statement)
        if problem is None and statement.kind not in self._spec.signing:
            problem = f"the engine gives no rule for statements of kind {statement.kind!r}"
        if instance.honest:
            if problem is None and self._watch is not None:
                problem = self._watch.signs(instance.identity, statement)
            if problem is not None:
                raise Violation(f"{instance.name} asks for a signature that it must not get: {problem}")
        return problem is None

    def signature(self, identity: ReplicaIndex, statement: bytes) -> bytes:
        """Sign an encoded statement with a member's key; whoever calls vouches that the member may be made to."""
        return self._registry.sign(self._keys[identity], statement)

    def sign(self, identity: ReplicaIndex, message: Any) -> Any:
        """Return a message with a member's signature."""
        signature = self.signature(identity, canonical(message.statement()))
        return msgspec.structs.replace(message, signature=signature)

    def is_signed(self, claim: Claim) -> bool:
        """Say whether a member has really signed what a claim says."""
        if not 0 <= claim.signer < len(self._keys):
            return False
        return self._registry.verify(self._keys[claim.signer], canonical(claim.statement), claim.signature)

    def claims_problem(self, sender: ReplicaIndex, message: Any) -> str | None:
        """Say which signature inside a message nobody made, or None."""
        for claim in self._spec.claims(sender, message):
            if not self.is_signed(claim):
                return f"n{claim.signer} has not signed its {claim.statement.kind}"
        return None
