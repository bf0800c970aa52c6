"""Nodes whose journals are here though they are another's: what they had begun is this node's to end.

A file in `gone/`, named like the node, says that all it wrote is in this directory, or lost for good. Control acts on
it and renames it. `adopt` writes it beforehand under a name that nobody acts on, so a repeated `adopt` knows it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from taximeter.core.tags import is_valid
from taximeter.journal.files import make_directory
from taximeter.journal.format import SUFFIX, header_of
from taximeter.node.replacing import sync_directory

FOLDER = "gone"
_PENDING, _DONE = ".pending-", ".done-"


def writers(directory: Path) -> set[str]:
    """The nodes that wrote the journals of a directory, as far as they can be read."""
    found = set()
    for path in directory.glob(f"*{SUFFIX}"):
        with suppress(OSError, ValueError), path.open("rb") as file:
            found.add(header_of(file.readline(), path.stem).node)
    return {name for name in found if is_valid(name)}


def announce(directory: Path, nodes: Iterable[str]) -> None:
    """These nodes' journals will be here. Raises OSError."""
    folder = directory / FOLDER
    make_directory(folder)
    for node in nodes:
        (folder / f"{_PENDING}{node}").touch()
    sync_directory(folder)


def declare(directory: Path, nodes: Iterable[str] = ()) -> list[str]:
    """These nodes, and those that were announced, wrote nothing that is not here; returns all. Raises OSError."""
    folder = directory / FOLDER
    announce(directory, nodes)
    declared = []
    for path in sorted(folder.glob(f"{_PENDING}*")):
        path.rename(folder / path.name.removeprefix(_PENDING))
        declared.append(path.name.removeprefix(_PENDING))
    sync_directory(folder)
    return declared


def declare_former(directory: Path, node: str) -> None:
    """At the start of a node: what it wrote under another name is its own. Not what is being adopted, nor what was: by
    now another node may have that name."""
    folder = directory / FOLDER
    with suppress(OSError):
        for other in writers(directory) - {node}:
            if not any((folder / f"{state}{other}").exists() for state in (_PENDING, _DONE)):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / other).touch()


def gone(directory: Path) -> list[str]:
    """The nodes that were declared."""
    return sorted(path.name for path in (directory / FOLDER).glob("[!.]*"))


def forget(directory: Path, nodes: Iterable[str]) -> None:
    """What they had begun is this node's now."""
    for node in nodes:
        with suppress(FileNotFoundError):
            (directory / FOLDER / node).rename(directory / FOLDER / f"{_DONE}{node}")
