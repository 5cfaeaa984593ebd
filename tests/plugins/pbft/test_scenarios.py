"""Golden scenarios: what is done to a cluster, and every message that follows.

A file in tests/scenarios/pbft is a row of blocks: commands, a line `----`, and the trace up to the next
empty line. With BFTKIT_REWRITE_GOLDEN=1 the traces are written anew, to be read as a diff.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.pbft.byzantine import LIES
from tests.plugins.pbft.cluster import Cluster

FOLDER = Path(__file__).resolve().parents[2] / "scenarios" / "pbft"
FILES = sorted(FOLDER.glob("*.txt"))


class Scenario:
    """Carries out commands, one line each."""

    def __init__(self) -> None:
        self.cluster: Cluster | None = None

    def carry_out(self, line: str) -> None:
        words = line.split()
        match words:
            case []:
                return
            case [word, *_] if word.startswith("#"):
                return
            case ["cluster", members, *settings]:
                options: dict[str, Any] = {}
                for setting in settings:
                    name, _, value = setting.partition("=")
                    options[name] = int(value)
                self.cluster = Cluster(int(members), traced=True, **options)
                return
        cluster = self.cluster
        assert cluster is not None, "a scenario begins with a cluster"
        match words:
            case ["submit", batch, "of", origin]:
                cluster.submit(batch, int(origin))
            case ["submit", batch, "of", origin, "to", *some]:
                cluster.submit(batch, int(origin), tuple(int(one) for one in some))
            case ["cut", *some]:
                away = {int(one) for one in some}
                cluster.faults.cut = lambda sender, receiver: (sender in away) != (receiver in away)
            case ["lose", kind, "of", member, "to", *receivers]:
                heard = {int(receiver) for receiver in receivers}
                cluster.rewrite[int(member)] = lambda receiver, message: (
                    None if type(message).__name__ == kind and receiver in heard else message
                )
            case ["lie", name, member]:
                lie = next(lie for lie in LIES if lie.__name__ == name)
                cluster.rewrite[int(member)] = lie(int(member), cluster)
            case ["crash", member]:
                cluster.crash(int(member))
            case ["restart", member]:
                cluster.restart(int(member))
            case ["run", milliseconds]:
                cluster.run(int(milliseconds))
            case ["status"]:
                for node in cluster.nodes:
                    self.say_status(node.index)
            case _:
                raise AssertionError(f"no such command: {line}")

    def say_status(self, index: int) -> None:
        cluster = self.cluster
        assert cluster is not None
        if not cluster.nodes[index].alive:
            cluster.say(f"n{index} is down")
            return
        status = cluster.nodes[index].engine.status()
        text = f"n{index} view {status.view}, {status.mode}, committed {status.position}"
        if status.waiting_for:
            text += f", waits for {status.waiting_for} from {', '.join(f'n{one}' for one in status.waiting_on) or '-'}"
        cluster.say(text)


def replay(text: str) -> str:
    """Return a scenario with the traces that it has now."""
    scenario = Scenario()
    out: list[str] = []
    in_trace = False
    for line in text.splitlines():
        if in_trace and line.strip():
            continue
        in_trace = False
        out.append(line)
        if line == "----":
            assert scenario.cluster is not None
            out += scenario.cluster.trace
            scenario.cluster.trace.clear()
            in_trace = True
        else:
            scenario.carry_out(line)
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_goes_as_it_is_written(path):
    expected = path.read_text(encoding="utf-8")
    found = replay(expected)
    if os.environ.get("BFTKIT_REWRITE_GOLDEN"):
        path.write_text(found, encoding="utf-8")
        return
    assert found == expected


def test_there_are_scenarios():
    assert len(FILES) >= 5
