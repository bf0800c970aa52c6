"""The distribution: its own wheel, whole, with nothing to install beside it and nothing of the proxy in it."""

from __future__ import annotations

import ast
import sys
from importlib import metadata
from pathlib import Path

import taximeter_rag

SOURCE = Path(taximeter_rag.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
NOT_NEEDED = {"lightrag", "numpy"}
"""Imported inside functions that only run where LightRAG is."""


def imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add((node.module or "").partition(".")[0])
    return found


def test_it_imports_the_standard_library_and_itself_only() -> None:
    others = set().union(*map(imported, MODULES)) - {"taximeter_rag"} - set(sys.stdlib_module_names)
    assert others == NOT_NEEDED
    at_once = {name for file in MODULES for name in _outside_functions(file)}
    assert not at_once & NOT_NEEDED


def _outside_functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name.partition(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    return names | {(node.module or "").partition(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom)}


def test_the_wheel_is_whole_and_needs_nothing(site: Path) -> None:
    (found,) = metadata.distributions(name="taximeter-rag", path=[str(site)])
    assert [each for each in found.requires or () if "extra ==" not in each] == []
    assert {(each.group, each.name, each.value) for each in found.entry_points} == {
        ("console_scripts", "taximeter-rag", "taximeter_rag.cli:main"),
        ("lightrag.parsers", "taximeter", "taximeter_rag.lightrag:register"),
    }
    installed = {file.relative_to(site / "taximeter_rag") for file in (site / "taximeter_rag").rglob("*.py")}
    assert installed == {file.relative_to(SOURCE) for file in MODULES}
    assert (site / "taximeter_rag" / "py.typed").exists()
