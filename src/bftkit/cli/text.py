"""From what people type to commands and queries of the application, and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bftkit.errors import ConfigurationError


def application_of(cluster_path: Path) -> Any:
    """Return the application class of a cluster; None where it is not installed here, and words stay bytes."""
    from bftkit.runtime.client_files import cluster_of
    from bftkit.runtime.node_process import load_application

    name = cluster_of(cluster_path).cluster.application
    try:
        return load_application(name)
    except ConfigurationError:
        return None


def to_bytes(application: Any, method: str, words: Sequence[str]) -> bytes:
    """Return what the application makes of the words; joined by spaces where it has no say."""
    translate = getattr(application, method, None)
    return translate(words) if translate is not None else " ".join(words).encode()


def to_text(application: Any, data: bytes) -> str:
    """Return a result as people read it."""
    translate = getattr(application, "result_to_text", None)
    return translate(data) if translate is not None else data.decode("utf-8", "backslashreplace")
