"""What a replica tells its engine, at any time and in any order: checkpoints, catching up, readers, the end."""

from __future__ import annotations

from bftkit.core.inputs import Available, EngineInput, Read, Sealed, Stable, Synced, TimerFired, Transfer
from bftkit.core.log import CommitEntry
from bftkit.core.outputs import Broadcast, Commit, EngineOutput, Persist, ReadReady, Send
from bftkit.testing.conformance.case import Property, Trial, expect
from bftkit.testing.conformance.plans import calm, eventful, rough
from bftkit.testing.conformance.recordings import Recording, Sandbox
from bftkit.testing.engine_group import EngineGroup, Instance

_BOXES = 16
_TOLD = 60
_AFTER_THE_END_MS = 20_000


class _Replica:
    """Tells an engine in a sandbox things that a replica may tell, and looks at the answers."""

    def __init__(self, trial: Trial, recording: Recording, box: Sandbox) -> None:
        self._trial = trial
        self._recording = recording
        self._box = box
        self._log: list[CommitEntry] = recording.entries
        self._reads: list[int] = []

    def tell(self) -> None:
        """Tell it one thing, and whatever it says to itself because of it."""
        random, box = self._trial.random, self._box
        box.now += random.choice([0, 1, 50, 2_000])
        event = random.choice([self._synced, self._stable_at, self._available, self._read, self._other])()
        if event is not None:
            position, stable = box.position, box.stable
            outputs = box.tell(event)
            self._judge(max(position, event.position) if isinstance(event, Synced) else position, outputs)
            if isinstance(event, Stable) and event.checkpoint.position > stable:
                self._judge_stable(event, outputs)
        self._judge(box.position, box.hear_itself())

    def _synced(self) -> EngineInput | None:
        position = self._trial.random.randint(0, min(len(self._log), self._box.position + 4))
        if position == 0:
            return None
        known = self._log[self._box.position : position]
        refs = tuple(ref for entry in known for ref in entry.refs)
        return Synced(self._box.now, position, refs, self._log[position - 1].proof)

    def _stable_at(self) -> EngineInput | None:
        reached = [one for one in self._recording.stables.values() if one.position <= self._box.position]
        return Stable(self._box.now, self._trial.random.choice(reached)) if reached else None

    def _available(self) -> EngineInput:
        refs = list(self._recording.refs.values())
        count = self._trial.random.randint(0, min(3, len(refs)))
        return Available(self._box.now, tuple(self._trial.random.sample(refs, count)))

    def _read(self) -> EngineInput:
        self._reads.append(len(self._reads) + 1)
        return Read(self._box.now, self._reads[-1])

    def _other(self) -> EngineInput:
        random = self._trial.random
        if random.random() < 1 / 2:
            return Transfer(self._box.now, random.randrange(self._trial.members))
        return TimerFired(self._box.now, random.choice([*self._recording.timers, "no such timer"]))

    def _judge(self, position: int, outputs: list[EngineOutput]) -> None:
        for output in outputs:
            match output:
                case Commit(decided):
                    expect(decided == position + 1, f"it commits position {decided} after {position}")
                    position = decided
                case ReadReady(token):
                    expect(token in self._reads, f"it answers reader {token}, whom nobody has announced")
        status = self._box.engine.status()
        expect(status.position == position, f"it says that it is at {status.position}, and is at {position}")

    def _judge_stable(self, event: Stable, outputs: list[EngineOutput]) -> None:
        """Look for the record that lets the log be trimmed; an engine may know of a later checkpoint already."""
        records = sum(isinstance(one, Persist) and one.replaces_earlier for one in outputs)
        newest = event.checkpoint.position == max(self._recording.stables)
        expect(
            records == 1 or not (records or newest), f"a stable checkpoint brings {records} records that replace all"
        )


def any_input(trial: Trial) -> None:
    """Tell engines in many states what a replica may tell them, in any order."""
    recording = Recording(trial)
    told = [number for number, inputs in recording.inputs.items() if inputs]
    for _ in range(_BOXES):
        number = trial.random.choice(told)
        box = recording.sandbox(number, trial.random.randrange(len(recording.inputs[number])))
        replica = _Replica(trial, recording, box)
        for _ in range(_TOLD):
            replica.tell()
        box.tell(Sealed(box.now, box.position))
        for _ in range(_TOLD // 2):
            replica.tell()


def sealed(trial: Trial) -> None:
    """End the epoch where everybody is, give everybody work, and look what still happens."""
    group = trial.play()
    end = {one.number: len(one.log) for one in group.instances}
    for instance in group.instances:
        group.step(instance, Sealed(group.now, len(instance.log)))
    group.on_step = _nothing_new
    for number in range(4):
        group.submit(f"too late {number}", number % trial.members)
    group.run(_AFTER_THE_END_MS)
    for instance in group.instances:
        expect(len(instance.log) == end[instance.number], f"{instance.name} decides after the end of the epoch")


def _nothing_new(instance: Instance, event: EngineInput, outputs: list[EngineOutput]) -> None:
    for output in outputs:
        if isinstance(output, Send | Broadcast):
            named = tuple(instance.spec.references(output.message))
            expect(not named, f"{instance.name} proposes after the end of the epoch: {output.message}")


def reads(trial: Trial) -> None:
    """Ask for reads while others decide; an answer must not be older than what was decided before the question."""
    asked: dict[int, tuple[int, int]] = {}

    def watch(group: EngineGroup) -> None:
        def note(instance: Instance, event: EngineInput, outputs: list[EngineOutput]) -> None:
            if isinstance(event, Read) and instance.alive:
                asked[event.token] = (instance.number, max(map(len, (one.log for one in group.instances))))

        group.on_step = note

    group = trial.play(watch)
    answered: dict[int, None] = {}
    for instance, answer in group.reads:
        expect(answer.token not in answered, f"{instance.name} answers reader {answer.token} twice")
        answered[answer.token] = None
        # An answer in the step that asks is here before the question was noted: all of them are compared at the end.
        expect(answer.token in asked, f"{instance.name} answers reader {answer.token}, who has not asked")
        reader, decided = asked[answer.token]
        expect(reader == instance.number, f"{instance.name} answers reader {answer.token} of n{reader}")
        expect(
            answer.position >= decided,
            f"{instance.name} lets a reader see position {answer.position}, and {decided} was decided before he asked",
        )


def _with_reads(trial: Trial) -> list[str]:
    lines: list[str] = []
    for line in rough(trial, crashes=False):
        lines.append(line)
        if line.startswith(("submit", "run")):
            lines.append(f"read {len(lines) % trial.members}")
        if line.startswith("run") and trial.seed % 2 == 0:
            # Where the lead can be handed over, that is when two members may take themselves for the leader.
            lines += [f"transfer leader to {len(lines) % trial.members}", "run 5", "read leader"]
    return lines


PROPERTIES = (
    Property(
        "any-input",
        "inputs",
        "Checkpoints, catching up, bodies, readers, transfers and late timers are taken at any time, in any order.",
        any_input,
        eventful,
    ),
    Property(
        "sealed",
        "inputs",
        "Behind the end of an epoch nothing is proposed or decided.",
        sealed,
        calm,
    ),
    Property(
        "reads",
        "inputs",
        "A reader is answered once at most, with a position not older than what was decided before he asked.",
        reads,
        _with_reads,
    ),
)
