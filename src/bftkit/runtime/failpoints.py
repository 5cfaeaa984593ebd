"""Places with a name at which a node can be made to die, fail, wait or stop, to see what comes of it.

A process is told by its environment, and only there::

    BFTKIT_FAILPOINT="wal.before_fsync=kill@3; shard.before_send=sleep=20%0.1; seed=7"

Each entry is a name, an action, and when: `@3` is the third time only that the place is passed, `@3+` the third time
and all that follow, `%0.1` one time in ten, drawn from the seed (0 unless given); without any of them, every time.

What passes such a place calls a `Hit` with its name. Where nothing is armed, that is `pass_by`, which does nothing. In
a simulated node it is whatever the simulation wants to do there.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable
from enum import Enum
from random import Random

import msgspec

from bftkit.errors import ConfigurationError, StorageError, StorageFull
from bftkit.runtime.failpoint_names import failpoint

VARIABLE = "BFTKIT_FAILPOINT"
"""The environment variable that `bftkit.runtime.node_process` reads."""

LONGEST_SLEEP_MS = 600_000

Hit = Callable[[str], None]
"""Called with the name of a failpoint by whatever passes it; may not return."""


def pass_by(name: str) -> None:
    """Do nothing: no failpoint is armed."""


# -- what happens there -----------------------------------------------------------------------------


class Action(Enum):
    """What an armed failpoint does."""

    KILL = "kill"
    """End the process as `kill -9` does."""
    EXIT = "exit"
    """`exit=CODE`: end the process at once with this code, without any cleaning up."""
    ERROR = "error"
    """Raise the error of a disk that fails."""
    FULL = "full"
    """Raise the error of a disk without space, where something needs space."""
    SLEEP = "sleep"
    """`sleep=MS`: wait so many milliseconds, with everything that the thread would have done meanwhile."""
    STOP = "stop"
    """Stand still until somebody sends SIGCONT."""


_NUMBERS = {Action.EXIT: ("a code", 255), Action.SLEEP: ("milliseconds", LONGEST_SLEEP_MS)}
"""What the number of an action is, and how large at most."""


class Armed(msgspec.Struct, frozen=True):
    """One failpoint with what it does, and when."""

    name: str
    action: Action
    number: int = 0
    """The exit code, or the milliseconds."""
    first: int = 1
    """At which hit it acts first."""
    again: bool = True
    """Whether it acts at later hits as well."""
    chance: float = 1.0
    """With which probability it acts at all."""


Act = Callable[[Armed], None]
"""Does what an action wants that is not to raise an error of the disk."""


def act_on_process(armed: Armed) -> None:
    """Kill, end, delay or stop this process."""
    match armed.action:
        case Action.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case Action.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
        case Action.EXIT:
            os._exit(armed.number)
        case _:
            time.sleep(armed.number / 1_000)


class Failpoints:
    """What is armed, and how often it was passed; for many threads."""

    def __init__(self, armed: Iterable[Armed], *, seed: int = 0, act: Act = act_on_process) -> None:
        """Arm failpoints; ConfigurationError where one is unknown, armed twice, or cannot do what it is to do."""
        self._act = act
        self._lock = threading.Lock()
        self._armed: dict[str, Armed] = {}
        for each in armed:
            known = failpoint(each.name)
            if each.name in self._armed:
                raise ConfigurationError(f"the failpoint {each.name} is armed twice")
            if each.action is Action.FULL and not known.may_be_full:
                raise ConfigurationError(f"nothing needs space at the failpoint {each.name}: it cannot be full there")
            self._armed[each.name] = each
        self._hits = dict.fromkeys(self._armed, 0)
        self._random = {name: Random(f"{seed}/{name}") for name in self._armed}

    def __bool__(self) -> bool:
        return bool(self._armed)

    @property
    def armed(self) -> tuple[Armed, ...]:
        """List what is armed."""
        return tuple(self._armed.values())

    def hit(self, name: str) -> None:
        """Pass a failpoint: a `Hit`."""
        armed = self._armed.get(name)
        if armed is None or not self._is_time(armed):
            return
        if armed.action is Action.ERROR:
            raise StorageError(f"injected I/O error at the failpoint {name}")
        if armed.action is Action.FULL:
            raise StorageFull(f"injected lack of space at the failpoint {name}")
        self._act(armed)

    def _is_time(self, armed: Armed) -> bool:
        with self._lock:
            self._hits[armed.name] += 1
            hits = self._hits[armed.name]
            if hits != armed.first and not (armed.again and hits > armed.first):
                return False
            return armed.chance >= 1.0 or self._random[armed.name].random() < armed.chance


# -- as text ----------------------------------------------------------------------------------------

_ENTRY = re.compile(
    r"(?P<name>[^=@%]+)=(?P<action>[^=@%]*)(?:=(?P<number>[^=@%]*))?(?:@(?P<hit>[^=@%]*))?(?:%(?P<chance>[^=@%]*))?"
)


def parse_failpoints(text: str, *, act: Act = act_on_process) -> Failpoints:
    """Return what a text like the environment variable's arms; ConfigurationError says what is wrong with it."""
    armed, seed = [], 0
    for entry in filter(None, map(str.strip, text.split(";"))):
        key, _, value = entry.partition("=")
        if key.strip() == "seed":
            seed = _whole(entry, "a seed", value, 0, 2**64)
        else:
            armed.append(_parse(entry))
    return Failpoints(armed, seed=seed, act=act)


def _parse(entry: str) -> Armed:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise _wrong(entry, "it needs the form name=action, with @HIT, @HIT+ or %PROBABILITY behind it")
    known = failpoint(match["name"].strip())
    word = match["action"].strip()
    if word not in [action.value for action in Action]:
        raise _wrong(entry, f"{word!r} is none of {', '.join(action.value for action in Action)}")
    action, number = Action(word), 0
    if action in _NUMBERS:
        what, most = _NUMBERS[action]
        number = _whole(entry, f"{word}={what}", match["number"] or "", 0, most)
    elif match["number"] is not None:
        raise _wrong(entry, f"{word} takes no number")
    hit = match["hit"].strip() if match["hit"] is not None else "1+"
    return Armed(
        known.name,
        action,
        number,
        first=_whole(entry, "@HIT", hit.removesuffix("+"), 1, 2**64),
        again=hit.endswith("+"),
        chance=_probability(entry, match["chance"]),
    )


def _whole(entry: str, what: str, text: str, least: int, most: int) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
        raise _wrong(entry, f"{what} is a whole number from {least} to {most}, not {text!r}")
    return int(text)


def _probability(entry: str, text: str | None) -> float:
    if text is None:
        return 1.0
    if not re.fullmatch(r"\s*(0?\.\d+|1(\.0*)?)\s*", text) or not float(text):
        raise _wrong(entry, f"%PROBABILITY is above 0 and at most 1, like %0.25, not {text!r}")
    return float(text)


def _wrong(entry: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{entry!r} arms no failpoint: {problem}")
