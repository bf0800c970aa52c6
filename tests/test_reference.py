"""docs/reference is what the code says now, and leaves nothing out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from control_plane import ControlPlane, control, start
from taximeter.config import Settings
from taximeter.core import errors
from taximeter.sinks.prometheus.cells import Metrics
from taximeter.sinks.prometheus.families import Exposition

__all__ = ["control", "start"]

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs/reference"
PAGES = ("api.md", "errors.md", "metrics.md", "settings.md")


def words(page: str) -> set[str]:
    """Everything in code on a page."""
    return set(re.findall(r"`([^`]+)`", (REFERENCE / page).read_text()))


def test_the_pages_are_what_the_code_says_now(tmp_path: Path) -> None:
    """If not: `make reference`, and look at the difference."""
    made = {**os.environ, "PYTHONPATH": f"{ROOT / 'proxy'}:{ROOT / 'scripts'}"}
    subprocess.run([sys.executable, "-m", "reference", str(tmp_path)], env=made, check=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == list(PAGES)
    for page in PAGES:
        assert (REFERENCE / page).read_text() == (tmp_path / page).read_text(), page
    assert sorted(each.name for each in REFERENCE.iterdir()) == list(PAGES)


def settings(kind: inspect.Type, path: str = "") -> set[str]:
    """Every setting's path: `limits.head_bytes`."""
    if isinstance(kind, inspect.ListType):
        kind = kind.item_type
    if not isinstance(kind, inspect.StructType):
        return {path}
    return {
        each for field in kind.fields for each in settings(field.type, f"{path}.{field.name}" if path else field.name)
    }


def test_every_setting_is_in_its_section_with_a_meaning() -> None:
    told, section = set(), ""
    for line in (REFERENCE / "settings.md").read_text().splitlines():
        if heading := re.fullmatch(r"## `\[+([a-z._]+)\]+`", line):
            section = f"{heading[1]}."
        elif row := re.fullmatch(r"\| `(\w+)` \| (.{4,}) \| (.+) \| (.+) \|", line):
            told.add(f"{section}{row[1]}")
    assert told == settings(inspect.type_info(Settings))


def test_every_metric_that_can_be_exposed_is_there() -> None:
    """Also those that the code exposes in some cases only, by what it says."""
    exposed = {f"{family.name}_total" if family.type == "counter" else family.name for family in bare().collect()}
    text = (ROOT / "proxy/taximeter/sinks/prometheus/families.py").read_text()
    assert exposed
    assert exposed - words("metrics.md") == set()
    assert {
        name for name in re.findall(r'"(taximeter_\w+)"', text) if not {name, f"{name}_total"} & words("metrics.md")
    } == set()
    for name in re.findall(r'(?:_counter|_histogram)\(\s*"(\w+)"|^        \("(\w+)", "', text, re.MULTILINE):
        made = f"taximeter_{name[0] or name[1]}"
        assert {made, f"{made}_total"} & words("metrics.md"), made


def bare() -> Exposition:
    async def nowhere(_: object) -> dict[str, int]:
        return {}

    return Exposition(Metrics(nowhere), letters=lambda: (0, 0))


def kinds(kind: type[errors.RequestError]) -> set[type[errors.RequestError]]:
    return {kind}.union(*map(kinds, kind.__subclasses__()))


def test_every_error_code_is_there_with_its_status() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \| .+ \| (\d+) \|", (REFERENCE / "errors.md").read_text(), re.MULTILINE))
    answered = {(kind.code, str(kind.status)) for kind in kinds(errors.RequestError) if kind is not errors.RequestError}
    assert answered - rows == set()
    sources = "".join(file.read_text() for file in (ROOT / "proxy/taximeter").rglob("*.py"))
    assert set(re.findall(r"""\bcode"?(?: =|:) "(\w+)\"""", sources)) - {code for code, _ in rows} == set()


async def test_every_operation_and_shape_of_a_running_node_is_there(control: ControlPlane) -> None:
    document: dict[str, Any] = msgspec.json.decode((await control.client.get("/schema")).content)
    text = (REFERENCE / "api.md").read_text()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if any("text/html" in answer.get("content", {}) for answer in operation["responses"].values()):
                assert f"| `{path}` |" in text
            else:
                assert f"### `{method.upper()} {path}`\n" in text
    for shape in document["components"]["schemas"]:
        assert f"\n### {shape}\n" in text


@pytest.mark.parametrize("page", PAGES)
def test_anchors_on_a_page_lead_to_headings_of_it(page: str) -> None:
    text = (REFERENCE / page).read_text()
    titles = re.findall(r"^#+ (.+)", text, re.MULTILINE)
    headings = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    assert len(headings) == len(titles), "two of the same name: a link would lead to the first"
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) - headings == set()
