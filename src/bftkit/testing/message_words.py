"""Messages in a few words, for people: kinds, numbers and names, no digests and no signatures."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.statement import Statement

_SHORT = {"view": "v", "term": "t", "round": "r", "position": "p", "index": "i", "signer": "n"}
"""Numbers with a letter of their own, which is all that is said of their name."""


def batch_words(refs: Sequence[BatchRef], names: Mapping[bytes, str]) -> str:
    """Say a list of batches, by their names or the begin of their digests: `[a b]`."""
    return "[" + " ".join(names.get(ref.digest, ref.digest[:3].hex()) for ref in refs) + "]"


def message_words(value: Any, names: Mapping[bytes, str]) -> str:
    """Say a message or a part of one.

    Views and positions become `v1` and `p7`, batches `[a b]`, certificates `prepare v0 p1 by n0 n1 n2`; other
    numbers carry the name of their field, and bytes are left out.
    """
    match value:
        case BatchRef():
            return batch_words((value,), names)
        case Statement():
            return f"{value.kind} v{value.view} p{value.position}"
        case QuorumCertificate():
            return f"{message_words(value.statement, names)} by {' '.join(f'n{signer}' for signer in value.signers)}"
        case CheckpointCertificate():
            return str(value.position)
        case tuple() | list():
            return "{" + ", ".join(message_words(one, names) for one in value) + "}"
        case msgspec.Struct():
            return " ".join([*_name(value), *_fields(value, names)])
    return str(value)


def _name(value: msgspec.Struct) -> list[str]:
    """Name a message; parts of messages, which have no tag of their own, are known by what they hold."""
    return [type(value).__name__] if value.__struct_config__.tag is not None else []


def _fields(value: msgspec.Struct, names: Mapping[bytes, str]) -> list[str]:
    out: list[str] = []
    for name in value.__struct_fields__:
        field = getattr(value, name)
        match field:
            case bytes() | None:
                continue
            case bool():
                out += [name] if field else []
            case int() if name in _SHORT:
                out.append(f"{_SHORT[name]}{field}")
            case BatchRef() | QuorumCertificate():
                out.append(message_words(field, names))
            case tuple() if name == "refs" or _are_batches(field):
                out.append(batch_words(field, names))
            case msgspec.Struct() if field.__struct_config__.tag is not None:
                out.append(f"({message_words(field, names)})")
            case _:
                out.append(f"{name}={message_words(field, names)}")
    return out


def _are_batches(value: tuple[Any, ...]) -> bool:
    return bool(value) and all(isinstance(one, BatchRef) for one in value)
