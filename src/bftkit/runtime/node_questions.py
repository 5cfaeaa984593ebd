"""What a node answers to questions outside the log: about itself, and reads that it serves alone."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import msgspec

from bftkit.errors import NotReady, Rejected
from bftkit.replica.explain import explain
from bftkit.runtime.admin_messages import AdminAnswer, AdminAsk
from bftkit.runtime.reads import ReadOutcome, ask_machine

if TYPE_CHECKING:
    from bftkit.runtime.listener import Refusal
    from bftkit.runtime.node import Node

T = TypeVar("T")

Reply = Callable[[AdminAnswer], None]
"""Takes the answer to one question, now or later."""


class _Promised(Generic[T]):
    """A value that somebody gives later, once."""

    def __init__(self) -> None:
        self._values: list[T] = []
        self._kept = anyio.Event()

    def keep(self, value: T) -> None:
        """Give it."""
        self._values.append(value)
        self._kept.set()

    async def wait(self) -> T:
        """Wait for it."""
        await self._kept.wait()
        return self._values[0]


class NodeQuestions:
    """Answers the questions to one node."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    async def take(self, ask: AdminAsk, reply: Reply) -> None:
        """Take a question. A read is answered later, so that what its asker sends meanwhile does not wait for it."""
        node = self._node
        if ask.verb != "read" or not node.is_running:
            reply(await self._answer_now(ask))
        elif len(ask.body) > node.settings.limits.max_command_bytes:
            longest = node.settings.limits.max_command_bytes
            reply(AdminAnswer(ask.id, False, f"a query is longer than {longest} bytes".encode()))
        elif not node.settings.spec.answers_reads:
            reply(AdminAnswer(ask.id, False, b"the engine orders reads in the log"))
        else:
            node.reads.read(ask.body, lambda outcome: reply(outcome.answer(ask)))

    async def answer(self, ask: AdminAsk) -> AdminAnswer:
        """Answer a question, and wait until there is an answer."""
        answer: _Promised[AdminAnswer] = _Promised()
        await self.take(ask, answer.keep)
        return await answer.wait()

    async def read(self, request: bytes, timeout: float) -> bytes:
        """Answer a read of this process; `Rejected` or `NotReady` where there is no answer in time."""
        promised: _Promised[ReadOutcome] = _Promised()
        self._node.reads.read(request, promised.keep)
        with anyio.move_on_after(timeout):
            outcome = await promised.wait()
            if outcome.ok:
                return outcome.body
            reason = outcome.body.decode("utf-8", "replace")
            raise NotReady(reason) if outcome.retry else Rejected(reason)
        raise NotReady("the replica does not learn in time how recent its state is")

    async def _answer_now(self, ask: AdminAsk) -> AdminAnswer:
        node = self._node
        if not node.is_running:
            return AdminAnswer(ask.id, False, b"the node is not running", 0, retry=True)
        height = node.application.executor.height
        if ask.verb == "status":
            return AdminAnswer(ask.id, True, msgspec.json.encode(await node.status()), height)
        if ask.verb == "explain":
            return AdminAnswer(ask.id, True, msgspec.json.encode(explain(node.replica)), height)
        if ask.verb == "query":
            outcome: ReadOutcome = await node.application.call(ask_machine, node.application.executor, ask.body)
            return outcome.answer(ask)
        return AdminAnswer(ask.id, False, f"unknown question {ask.verb[:40]!r}".encode(), height)


async def status_of(node: "Node", facts: dict[str, Any], refusals: "Sequence[Refusal]") -> dict[str, Any]:
    """Return what a node knows of itself, as plain values."""
    replica = node.replica
    names = node.settings.membership
    status = replica.status()
    height, state_root, sessions_root = await node.application.call(node.application.roots_now)
    counters = msgspec.structs.asdict(node.shard.counters)
    counters |= {"commands": node.application.commands, "verified": node.pipeline.counters.verified}
    counters |= {"rejected": node.pipeline.counters.rejected, "requests": node.edge.counters.requests}
    counters |= {"reads": node.reads.count}
    return {
        "id": node.name,
        "cluster": node.settings.genesis.config.cluster,
        "engine": node.settings.spec.name,
        "epoch": node.settings.epoch,
        "view": status.view,
        "mode": status.mode,
        "leader": names.name(status.leader) if status.leader is not None else None,
        "position": replica.commits.position,
        "height": replica.commits.height,
        "applied": height,
        "stable": replica.checkpoints.stable.position,
        "state_root": state_root.hex(),
        "sessions_root": sessions_root.hex(),
        "quorum": names.quorum.quorum,
        "waiting_for": status.waiting_for or None,
        "waiting_on": [names.name(member) for member in status.waiting_on],
        "peers": [names.name(peer) for peer in node.settings.others if replica.catch_up.connected[peer]],
        "clients": node.edge.clients,
        "counters": counters,
        "last_rejection": node.pipeline.counters.last_rejection or None,
        "last_refusal": node.edge.counters.last_refusal or None,
        "refusals": [f"{refusal.address}: {refusal.reason}" for refusal in refusals],
        **facts,
    }
