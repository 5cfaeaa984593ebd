"""What the verify stage of a node does, for messages that were never encoded."""

from collections.abc import Callable
from typing import Any

from bftkit.core.batch import BatchBody, open_body
from bftkit.core.statement import statement_bytes
from bftkit.errors import WireError
from bftkit.replica.messages import AnyReplicaMessage, message_claims, message_problem
from bftkit.replica.settings import ReplicaSettings

_REPLICA_TYPES = frozenset(AnyReplicaMessage.__args__)


class VerifyStage:
    """Checks the form of messages, and every signature inside them.

    Where all are honest, bodies are taken for what they say they are.
    """

    def __init__(self, settings: ReplicaSettings, verify: Callable[[bytes, bytes, bytes], bool]) -> None:
        self._settings = settings
        self._verify = verify
        self._domain = settings.domain
        self.hash_bodies = False
        """Whether bodies are hashed, as they must be where somebody lies."""

    def open(self, sender: int, message: Any) -> Any:
        """Return the verified message; WireError says what is wrong with it."""
        settings = self._settings
        if type(message) is BatchBody:
            return self._body(message) if self.hash_bodies else message
        claims = settings.spec.claims
        if type(message) in _REPLICA_TYPES:
            problem = message_problem(settings.context, settings.spec, message)
            claims = message_claims
        else:
            problem = settings.spec.check(settings.context, sender, message)
        if problem is not None:
            raise WireError(problem)
        key = settings.membership.public_key
        for claim in claims(sender, message):
            if not self._verify(key(claim.signer), statement_bytes(self._domain, claim.statement), claim.signature):
                raise WireError(f"a signature of n{claim.signer} is not valid")
        return message

    def _body(self, body: BatchBody) -> BatchBody:
        try:
            return open_body(body.header, body.blob)
        except ValueError as error:
            raise WireError(str(error)) from error
