"""Messages in a few words, for people: kinds, numbers and names, no digests and no signatures."""

from collections.abc import Mapping
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.statement import Statement

_SHORT = {"view": "v", "term": "t", "round": "r", "position": "p", "index": "i", "signer": "n"}
"""Numbers with a letter of their own, which is all that is said of their name."""

_SILENT = ("signature",)


def message_words(value: Any, names: Mapping[bytes, str]) -> str:
    """Say a message or a part of one; batches by their names, or by the begin of their digests.

    Views and positions become `v1` and `p7`, batches `[a b]`, certificates `prepare v0 p1 by n0 n1 n2`; other
    numbers carry the name of their field, and bytes are left out.
    """
    return _words(value, names)


def _words(value: Any, names: Mapping[bytes, str]) -> str:
    match value:
        case BatchRef():
            return names.get(value.digest, value.digest[:3].hex())
        case Statement():
            return f"{value.kind} v{value.view} p{value.position}"
        case QuorumCertificate():
            return f"{_words(value.statement, names)} by {' '.join(f'n{signer}' for signer in value.signers)}"
        case CheckpointCertificate():
            return str(value.position)
        case tuple() | list():
            if all(isinstance(one, BatchRef) for one in value):
                return "[" + " ".join(_words(one, names) for one in value) + "]"
            return "{" + ", ".join(_words(one, names) for one in value) + "}"
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
                out.append(_words(field, names))
            case tuple() if field and all(isinstance(one, BatchRef) for one in field):
                out.append(_words(field, names))
            case msgspec.Struct() if field.__struct_config__.tag is not None:
                out.append(f"({_words(field, names)})")
            case _:
                out.append(f"{name}={_words(field, names)}")
    return out
