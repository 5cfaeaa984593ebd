"""How a schedule is played again, in one line: a command where that can say everything, Python where it cannot."""

from enum import Enum
from typing import Any

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.errors import EngineError
from bftkit.testing.profile import Profile
from bftkit.testing.specs import Settings, spec_of
from bftkit.testing.workload import Workload


def replay_line(  # everything that a schedule consists of
    seed: int,
    engine: str | EngineSpec,
    replicas: int,
    profile: str | Profile,
    settings: Settings = (),
    workload: Workload | None = None,
    options: Any = None,
) -> str:
    """Return what runs a schedule once more; arguments as for `World`.

    What is of a program's own stands there under the name that it has in the program: a function's or class's, and
    for an engine that is not installed, its own.
    """
    meant = installed_name(engine)
    if meant is not None and isinstance(profile, str) and workload is None and options is None:
        words = f"bftkit sim replay {seed} --engine {meant} --replicas {replicas} --profile {profile}"
        return words + "".join(f" --option {name}={value}" for name, value in settings)
    said: dict[str, Any] = {"profile": profile, "settings": settings, "workload": workload, "options": options}
    named = [f"{name}={as_python(value)}" for name, value in said.items() if value not in ((), None)]
    which = repr(meant) if meant is not None else as_python(engine)
    return f"run_schedule({', '.join([str(seed), f'engine={which}', f'replicas={replicas}', *named])})"


def installed_name(engine: str | EngineSpec) -> str | None:
    """Return the name under which exactly this engine is installed, or None where a program brings its own."""
    if isinstance(engine, str):
        return engine
    try:
        return engine.name if spec_of(engine.name) == engine else None
    except EngineError:
        return None


def as_python(value: Any) -> str:
    """Return an expression for a value, as short as its defaults allow; what is defined somewhere by its name."""
    match value:
        case EngineSpec():
            return value.name
        case Enum():
            return f"{type(value).__name__}.{value.name}"
        case tuple():
            return "(" + "".join(f"{as_python(each)}, " for each in value).removesuffix(" ") + ")"
        case msgspec.Struct():
            fields = msgspec.structs.fields(value)
            stated = [field for field in fields if not _is_default(field, getattr(value, field.name))]
            named = ", ".join(f"{field.name}={as_python(getattr(value, field.name))}" for field in stated)
            return f"{type(value).__name__}({named})"
        case _ if callable(value) and hasattr(value, "__qualname__"):
            return str(value.__qualname__)
    return repr(value)


def _is_default(field: msgspec.structs.FieldInfo, value: Any) -> bool:
    if field.default_factory is not msgspec.NODEFAULT:
        return bool(field.default_factory() == value)
    return bool(field.default == value)
