"""Scenarios: what is done to a group of engines, and every message that follows, as text that people read.

A scenario is a row of blocks: comments and commands, a line `----`, and the trace up to the next empty line. Played
again, it must give the same traces; a change of the protocol is then seen as a change of a text. The commands:

::

    cluster MEMBERS [twins=T] [interval=K] [seed=S] [OPTION=VALUE ...]    begin; options are the engine's own
    submit BATCH of ORIGIN [to MEMBER ...]        make a batch durable at some members, or at all
    read MEMBER | transfer MEMBER to MEMBER | seal MEMBER at POSITION
    cut MEMBER ...                                part these members from the others
    lose KIND of MEMBER to MEMBER ...             messages of a type do not reach these members
    loss PERCENT | repeat PERCENT | delay SHORTEST LONGEST
    heal                                          end all that is wrong with the network
    lie NAME MEMBER                               a member lies from now on, in a way that has a name
    crash MEMBER [after OUTPUTS | for good]       now, or after so many more outputs
    restart MEMBER | restart all
    run MILLISECONDS
    await MILLISECONDS                            wait until all is decided by all who are up, so long at most
    settle MILLISECONDS                           heal, restart all, and wait likewise
    status

The first T members have twins, which are numbered behind the members. In place of a member's number stands `leader`
for whom the first live member takes for the leader. Whoever has crashed for good is not restarted. What is not decided
in time is a `Violation`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.core.inputs import Read, Sealed, Transfer
from bftkit.testing.engine_group import EngineGroup, GroupSettings, Rewrite
from bftkit.testing.group_instance import NEVER, Instance

BEGIN_OF_TRACE = "----"

Lie = Callable[[int, EngineGroup], Rewrite]
"""Makes what a lying member says, given its number and the group."""


class ScenarioError(ValueError):
    """A line of a scenario cannot be carried out."""


class Scenario:
    """Carries out commands, one line each, on engines of one kind."""

    def __init__(
        self,
        spec: EngineSpec,
        lies: Mapping[str, Lie] | None = None,
        *,
        settings: GroupSettings | None = None,
        prepare: Callable[[EngineGroup], None] = lambda group: None,
    ) -> None:
        self._spec = spec
        self._lies = lies or {}
        self._settings = settings or GroupSettings(traced=True)
        self._prepare = prepare
        """Called with each group before it starts."""
        self._group: EngineGroup | None = None
        self._away: list[int] = []
        self._losses: list[tuple[str, int, list[int]]] = []
        self._gone: list[int] = []
        self._tokens = 0

    @property
    def group(self) -> EngineGroup:
        """Return the group that the last `cluster` command made."""
        if self._group is None:
            raise ScenarioError("a scenario begins with a cluster")
        return self._group

    def take_trace(self) -> list[str]:
        """Return what has happened since the last time."""
        trace = list(self.group.trace)
        self.group.trace.clear()
        return trace

    def carry_out(self, line: str) -> None:
        """Carry out one line; ScenarioError where it is no command. Comments and empty lines do nothing."""
        if not line.strip() or line.startswith("#"):
            return
        word, *words = line.split()
        command = _COMMANDS.get(word)
        if command is None:
            raise ScenarioError(f"no such command: {line}")
        form, pattern, carry_out = command
        found = re.fullmatch(pattern, " ".join(words))
        if found is None:
            raise ScenarioError(f"{line!r} is not: {form}")
        try:
            carry_out(self, *found.groups())
        except ScenarioError as error:
            raise ScenarioError(f"{line}: {error}") from error

    def _instances(self, words: str | None) -> list[int]:
        """Return the numbers of the instances that words name; ScenarioError for one that is not there."""
        group = self.group
        numbers: list[int] = []
        for word in (words or "").split():
            if word == "leader":
                live = next((one for one in group.instances if one.alive), None)
                leader = live.engine.status().leader if live is not None else None
                numbers.append(leader if leader is not None else 0)
            else:
                numbers.append(_below(len(group.instances), word))
        return numbers

    def _cluster(self, members: str, settings: str) -> None:
        values = dict(setting.split("=", 1) for setting in settings.split())
        seed, interval, twins = (int(values.pop(key, default)) for key, default in _OWN_SETTINGS.items())
        try:
            options = msgspec.convert(values, self._spec.options_type, strict=False)
        except msgspec.ValidationError as error:
            raise ScenarioError(str(error)) from error
        made = msgspec.structs.replace(self._settings, options=options, interval=interval)
        self._heal()
        self._gone = []
        identity = (*range(int(members)), *range(twins))
        group = self._group = EngineGroup(self._spec, int(members), seed, identity=identity, settings=made)
        group.deliverable = self._passes
        self._prepare(group)
        group.start()

    def _passes(self, sender: int, receiver: int, what: Any) -> bool:
        if (sender in self._away) != (receiver in self._away):
            return False
        kind = type(what).__name__
        return not any(kind == lost and sender == member and receiver in deaf for lost, member, deaf in self._losses)

    def _submit(self, batch: str, origin: str, to: str | None) -> None:
        receivers = self._instances(to) if to is not None else None
        self.group.submit(batch, _below(self.group.members, origin), receivers)

    def _read(self, member: str) -> None:
        self._tokens += 1
        (reader,) = self._instances(member)
        self.group.step(self.group.instances[reader], Read(self.group.now, self._tokens))

    def _transfer(self, member: str, target: str) -> None:
        giver, taker = self._instances(f"{member} {target}")
        self.group.step(self.group.instances[giver], Transfer(self.group.now, self.group.instances[taker].identity))

    def _seal(self, member: str, position: str) -> None:
        (sealed,) = self._instances(member)
        self.group.step(self.group.instances[sealed], Sealed(self.group.now, int(position)))

    def _cut(self, members: str) -> None:
        self._away = self._instances(members)

    def _lose(self, kind: str, member: str, deaf: str) -> None:
        (loser,) = self._instances(member)
        self._losses.append((kind, loser, self._instances(deaf)))

    def _loss(self, percent: str) -> None:
        self.group.loss = int(percent) / 100

    def _repeat(self, percent: str) -> None:
        self.group.repeat = int(percent) / 100

    def _delay(self, shortest: str, longest: str) -> None:
        self.group.delay_ms = (int(shortest), max(int(shortest), int(longest)))

    def _heal(self) -> None:
        self._away, self._losses = [], []
        if self._group is not None:
            self._group.loss, self._group.repeat, self._group.delay_ms = 0.0, 0.0, (1, 1)

    def _lie(self, name: str, member: str) -> None:
        if name not in self._lies:
            raise ScenarioError(f"the lies are {', '.join(self._lies) or 'none'}")
        (liar,) = self._instances(member)
        self.group.corrupt(liar, self._lies[name](liar, self.group))

    def _crash(self, member: str, outputs: str | None, for_good: str | None) -> None:
        (victim,) = self._instances(member)
        if for_good is not None:
            self._gone.append(victim)
        if outputs is None:
            self.group.crash(victim)
        elif self.group.instances[victim].alive:
            self.group.instances[victim].crash_after = int(outputs)

    def _restart(self, member: str) -> None:
        numbers = range(len(self.group.instances)) if member == "all" else self._instances(member)
        for number in numbers:
            if number not in self._gone:
                self.group.restart(number)

    def _run(self, milliseconds: str) -> None:
        self.group.run(int(milliseconds))

    def _await(self, milliseconds: str) -> None:
        honest = [one for one in self.group.instances if one.honest and one.alive]
        self.group.run_until(lambda: all_decided(honest), int(milliseconds))

    def _settle(self, milliseconds: str) -> None:
        self._heal()
        for instance in self.group.instances:
            instance.crash_after = NEVER
        self._restart("all")
        self._await(milliseconds)

    def _status(self) -> None:
        for instance in self.group.instances:
            if not instance.alive:
                self.group.say(f"{instance.name} is down")
                continue
            status = instance.engine.status()
            text = f"{instance.name} view {status.view}, {status.mode}, committed {status.position}"
            if status.waiting_for:
                whom = ", ".join(f"n{one}" for one in status.waiting_on) or "-"
                text += f", waits for {status.waiting_for} from {whom}"
            self.group.say(text)


def _below(bound: int, word: str) -> int:
    if int(word) >= bound:
        raise ScenarioError(f"{word} is out of range: they are numbered 0 to {bound - 1}")
    return int(word)


def all_decided(instances: Sequence[Instance]) -> bool:
    """Say whether each of the instances has decided every batch that one of them holds."""
    return all(digest in one.decided for holder in instances for digest in holder.bodies for one in instances)


_OWN_SETTINGS = {"seed": 0, "interval": 4, "twins": 0}
"""Settings of `cluster` that are not the engine's, and what they are by default."""

_MEMBER, _NUMBER = r"(\d+|leader)", r"(\d+)"
_MEMBERS = r"((?:\d+|leader)(?: (?:\d+|leader))*)"

_COMMANDS: dict[str, tuple[str, str, Callable[..., None]]] = {
    "cluster": ("cluster MEMBERS [SETTING=VALUE ...]", rf"{_NUMBER}((?: \w+=\S+)*)", Scenario._cluster),
    "submit": (
        "submit BATCH of ORIGIN [to MEMBER ...]",
        rf"(\S+) of {_NUMBER}(?: to {_MEMBERS})?",
        Scenario._submit,
    ),
    "read": ("read MEMBER", _MEMBER, Scenario._read),
    "transfer": ("transfer MEMBER to MEMBER", f"{_MEMBER} to {_MEMBER}", Scenario._transfer),
    "seal": ("seal MEMBER at POSITION", f"{_MEMBER} at {_NUMBER}", Scenario._seal),
    "cut": ("cut MEMBER ...", _MEMBERS, Scenario._cut),
    "lose": ("lose KIND of MEMBER to MEMBER ...", rf"(\w+) of {_MEMBER} to {_MEMBERS}", Scenario._lose),
    "loss": ("loss PERCENT", _NUMBER, Scenario._loss),
    "repeat": ("repeat PERCENT", _NUMBER, Scenario._repeat),
    "delay": ("delay SHORTEST LONGEST", f"{_NUMBER} {_NUMBER}", Scenario._delay),
    "heal": ("heal", "", Scenario._heal),
    "lie": ("lie NAME MEMBER", rf"(\S+) {_MEMBER}", Scenario._lie),
    "crash": (
        "crash MEMBER [after OUTPUTS | for good]",
        f"{_MEMBER}(?: after {_NUMBER}| for (good))?",
        Scenario._crash,
    ),
    "restart": ("restart MEMBER | restart all", r"(\d+|all)", Scenario._restart),
    "run": ("run MILLISECONDS", _NUMBER, Scenario._run),
    "await": ("await MILLISECONDS", _NUMBER, Scenario._await),
    "settle": ("settle MILLISECONDS", _NUMBER, Scenario._settle),
    "status": ("status", "", Scenario._status),
}
"""For each command its form, the pattern of what follows it, and the method that takes the pattern's groups."""


def replay_scenario(text: str, spec: EngineSpec, lies: Mapping[str, Lie] | None = None) -> str:
    """Return a scenario with the traces that it gives now; ScenarioError where a line cannot be carried out."""
    scenario = Scenario(spec, lies)
    out: list[str] = []
    in_trace = False
    for line in text.splitlines():
        if in_trace and line.strip():
            continue
        in_trace = line == BEGIN_OF_TRACE
        out.append(line)
        if in_trace:
            out += scenario.take_trace()
        else:
            scenario.carry_out(line)
    return "\n".join(out) + "\n"


# --- As a page --------------------------------------------------------------------------------------------------------


def scenarios_page(title: str, introduction: str, files: Sequence[Path]) -> str:
    """Return a page of documentation that shows scenarios: their comments as text, the rest as it stands."""
    parts = [f"# {title}\n", introduction.strip() + "\n"]
    for path in files:
        parts.append(f"## {path.stem.replace('_', ' ').capitalize()}\n")
        for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
            lines = block.splitlines()
            comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
            rest = [line for line in lines if not line.startswith("#")]
            if comments:
                parts.append("\n".join(comments) + "\n")
            parts.append("\n".join(["```text", *rest, "```"]) + "\n")
    return "\n".join(parts)
