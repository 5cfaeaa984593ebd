"""The machine and the software that a figure was measured with; figures without them mean nothing."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("bftkit", "anyio", "msgspec", "cryptography", "uvloop")
IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
"""File systems on which a sync reaches no disk."""


def environment(data: Path) -> dict[str, Any]:
    """Return the fingerprint of this machine, with the file system that `data` is on."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": {name: _version(name) for name in LIBRARIES},
        "openssl": _openssl(),
        "file_system": file_system(data),
        "load_average": os.getloadavg()[0],
        "isolation": "processes",
        "command": sys.argv[1:],
    }


def file_system(path: Path) -> str:
    """Return the type of the file system that a path is on, such as ext4 or tmpfs."""
    path = path.resolve()
    best, kind = -1, "unknown"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        # proc(5): the mount point is the fifth field, the type follows a lone dash.
        fields, _, rest = line.partition(" - ")
        mount = Path(fields.split()[4].encode().decode("unicode_escape"))
        if path.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), rest.split()[0]
    return kind


def syncs_to_disk(path: Path) -> bool:
    """Say whether a sync of files at this path reaches a disk."""
    return file_system(path) not in IN_MEMORY


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _openssl() -> str:
    from cryptography.hazmat.backends.openssl import backend

    return backend.openssl_version_text()
