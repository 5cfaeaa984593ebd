"""The application stage of a simulated member: the real jobs, at times that are drawn."""

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from bftkit.replica.client_messages import ReadReply, Refusal
from bftkit.replica.execution import Answer
from bftkit.replica.inputs import Executed, SnapshotInstalled, SnapshotSaved
from bftkit.runtime.application import FULL_DISK_RETRY_S, MAX_TAKEN, ApplicationStage

if TYPE_CHECKING:
    from bftkit.testing.node import SimulatedNode

FINE = 1_024
"""In how many steps the time of a visit is drawn."""


class SimulatedApplication:
    """Takes jobs in order, in lists, and reports what came of them to its member and to the checkers."""

    def __init__(self, node: "SimulatedNode", stage: ApplicationStage) -> None:
        self._node = node
        self._stage = stage
        self._jobs: deque[Any] = deque()
        self._working = False

    @property
    def busy(self) -> bool:
        """Say whether jobs are waiting or being done."""
        return self._working or bool(self._jobs)

    @property
    def kept_states(self) -> int:
        """Count the states that wait until one of them is certified."""
        return self._stage.kept_states

    def put(self, job: Any) -> None:
        """Queue a job."""
        self._jobs.append(job)
        self._work_if_idle()

    def _work_if_idle(self) -> None:
        if self._working or not self._jobs:
            return
        self._working = True
        taken = [self._jobs.popleft() for _ in range(min(len(self._jobs), MAX_TAKEN))]
        node = self._node
        least, spread = node.world.profile.apply_us
        delay_us = least + spread * node.world.choices.disk.below("apply", node.instance, FINE) // FINE
        node.later(delay_us + node.disk_time_us(), self._worked, taken)

    def _worked(self, jobs: list[Any]) -> None:
        node, world = self._node, self._node.world
        outcome = self._stage.work(jobs)
        node.plan.reached("application.before_reply")
        self._working = False
        if outcome.undone:
            self._jobs.extendleft(reversed(outcome.undone))
            self._working = True
            node.later(int(FULL_DISK_RETRY_S * 1_000_000), self._try_again)
        for answer in outcome.answers:
            if node.honest:
                world.checkers.answered(node.index, answer.reply)
            if isinstance(answer.reply, Refusal):
                world.counters[f"refused: {answer.reply.reason}"] += 1
            world.answer(node.index, self._said(answer))
        for event in outcome.events:
            self._check(event)
        node.turn(*outcome.events)
        node.edge.serve()
        self._work_if_idle()

    def _said(self, answer: Answer) -> Answer:
        """Return what a member tells a client: the truth, or what a liar makes of the answer to a read."""
        node, reply = self._node, answer.reply
        if node.speak is None or not isinstance(reply, ReadReply):
            return answer
        if not node.world.choices.byzantine.chance("lies to clients", node.index, 0.5):
            return answer
        node.world.hits["invented answers"] += 1
        return Answer(answer.public_key, msgspec.structs.replace(reply, answer=b"invented"))

    def _try_again(self) -> None:
        self._working = False
        self._work_if_idle()

    def _check(self, event: Any) -> None:
        node, world = self._node, self._node.world
        if isinstance(event, Executed) and event.state_root is not None and node.honest:
            world.checkers.roots_at_position(node.index, event.position, (event.state_root, event.sessions_root or b""))
        installed = isinstance(event, SnapshotInstalled) and not event.problem
        if node.honest and (installed or isinstance(event, SnapshotSaved)):
            world.checkers.state_saved(node.index, event.certificate.checkpoint.height)
        if installed:
            world.checkers.restarted(node.index, event.certificate.position)
            world.counters["state transfers"] += 1
