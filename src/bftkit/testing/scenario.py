"""Scenarios: what is done to a group of engines, and every message that follows, as text that people read.

A scenario is a row of blocks: comments and commands, a line `----`, and the trace up to the next empty line. Played
again, it must give the same traces; a change of the protocol is then seen as a change of a text. The commands:

::

    cluster MEMBERS [interval=K] [seed=S] [OPTION=VALUE ...]    begin; options are the engine's own
    submit BATCH of ORIGIN [to MEMBER ...]                      make a batch durable at some members, or at all
    cut MEMBER ...                                              part these members from the others
    lose KIND of MEMBER to MEMBER ...                           messages of a type do not reach these members
    heal                                                        end all cuts and losses
    lie NAME MEMBER                                             a member lies from now on, in a way that has a name
    crash MEMBER | restart MEMBER | run MILLISECONDS | status
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.testing.engine_group import EngineGroup, GroupSettings, Rewrite

BEGIN_OF_TRACE = "----"

Lie = Callable[[int, EngineGroup], Rewrite]
"""Makes what a lying member says, given its number and the group."""


class ScenarioError(ValueError):
    """A line of a scenario cannot be carried out."""


class Scenario:
    """Carries out commands, one line each, on engines of one kind."""

    def __init__(self, spec: EngineSpec, lies: Mapping[str, Lie] | None = None) -> None:
        self._spec = spec
        self._lies = lies or {}
        self._group: EngineGroup | None = None
        self._away: list[int] = []
        self._losses: list[tuple[str, int, list[int]]] = []

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
        command = getattr(self, f"_do_{word}", None)
        if command is None:
            raise ScenarioError(f"no such command: {line}")
        try:
            command(words)
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise ScenarioError(f"{line}: {error}") from error

    def _do_cluster(self, words: Sequence[str]) -> None:
        members, *settings = words
        values = dict(setting.split("=", 1) for setting in settings)
        seed, interval = int(values.pop("seed", 0)), int(values.pop("interval", 4))
        options = msgspec.convert(values, self._spec.options_type, strict=False)
        made = GroupSettings(options=options, interval=interval, traced=True)
        self._do_heal(())
        group = self._group = EngineGroup(self._spec, int(members), seed, settings=made)
        group.deliverable = self._passes
        group.start()

    def _passes(self, sender: int, receiver: int, what: Any) -> bool:
        if (sender in self._away) != (receiver in self._away):
            return False
        kind = type(what).__name__
        return not any(kind == lost and sender == member and receiver in deaf for lost, member, deaf in self._losses)

    def _do_submit(self, words: Sequence[str]) -> None:
        batch, of, origin, *rest = words
        _expect(of == "of" and rest[:1] in ([], ["to"]), "submit BATCH of ORIGIN [to MEMBER ...]")
        self.group.submit(batch, int(origin), [int(one) for one in rest[1:]] if rest else None)

    def _do_cut(self, words: Sequence[str]) -> None:
        _expect(bool(words), "cut MEMBER ...")
        self._away = [int(one) for one in words]

    def _do_lose(self, words: Sequence[str]) -> None:
        kind, of, member, to, *receivers = words
        _expect(of == "of" and to == "to" and bool(receivers), "lose KIND of MEMBER to MEMBER ...")
        self._losses.append((kind, int(member), [int(one) for one in receivers]))

    def _do_heal(self, words: Sequence[str]) -> None:
        _expect(not words, "heal stands alone")
        self._away, self._losses = [], []

    def _do_lie(self, words: Sequence[str]) -> None:
        name, member = words
        _expect(name in self._lies, f"the lies are {', '.join(self._lies) or 'none'}")
        self.group.corrupt(int(member), self._lies[name](int(member), self.group))

    def _do_crash(self, words: Sequence[str]) -> None:
        (member,) = words
        self.group.crash(int(member))

    def _do_restart(self, words: Sequence[str]) -> None:
        (member,) = words
        self.group.restart(int(member))

    def _do_run(self, words: Sequence[str]) -> None:
        (milliseconds,) = words
        self.group.run(int(milliseconds))

    def _do_status(self, words: Sequence[str]) -> None:
        _expect(not words, "status stands alone")
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


def _expect(condition: bool, form: str) -> None:
    if not condition:
        raise ValueError(form)


def replay(text: str, spec: EngineSpec, lies: Mapping[str, Lie] | None = None) -> str:
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
