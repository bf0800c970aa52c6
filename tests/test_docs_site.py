"""The site holds every page and asks no other host for anything (`make docs` builds it; .ci/run does)."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def docs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/docs.py."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    for name in ("install", "docs_script"):
        spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name.removesuffix('_script')}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    return module


def pages(nav: Any) -> list[str]:
    """Every page of a navigation, in its order."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages(part)]


def test_the_navigation_has_each_page_once(docs: ModuleType) -> None:
    nav = pages(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])
    assert sorted(nav) == sorted(place for place in docs.placed(ROOT).values() if place.endswith(".md"))


def test_what_is_gathered_is_what_the_links_lead_to(docs: ModuleType, tmp_path: Path) -> None:
    docs.gather(ROOT, tmp_path)
    there = [page for page in tmp_path.rglob("*") if page.is_file()]
    assert len(there) == len(docs.placed(ROOT))
    for page in tmp_path.rglob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.relative_to(tmp_path)} -> {target}"


def tree(docs: ModuleType, root: Path, readme: str) -> Path:
    """A repository with one page in docs/, and a front page."""
    (root / "docs/decisions").mkdir(parents=True)
    (root / "config").mkdir()
    for name in (*docs.MOVED, *docs.FILES):
        (root / name).write_text("")
    (root / "docs/decisions/0001-one.md").write_text("[home](../../README.md#read-on) [file](../../config/prices.toml)")
    (root / "README.md").write_text(readme)
    return root


def test_links_are_written_for_the_pages_new_places(docs: ModuleType, tmp_path: Path) -> None:
    root = tree(
        docs, tmp_path / "repo", "[one](docs/decisions/0001-one.md#why), [log](CHANGELOG.md), [web](https://a/b)"
    )
    docs.gather(root, tmp_path / "out")
    assert (tmp_path / "out/index.md").read_text() == (
        "[one](decisions/0001-one.md#why), [log](changelog.md), [web](https://a/b)"
    )
    one = (tmp_path / "out/decisions/0001-one.md").read_text()
    assert one == "[home](../index.md#read-on) [file](../config/prices.toml)"


def test_a_link_that_leaves_the_site_without_being_taken_along_is_named(docs: ModuleType, tmp_path: Path) -> None:
    root = tree(docs, tmp_path / "repo", "[code](proxy/taximeter/core/record.py)")
    with pytest.raises(docs.Broken, match=r"README\.md: proxy/taximeter/core/record\.py is no page"):
        docs.gather(root, tmp_path / "out")


def test_what_a_page_would_load_from_another_host_is_found(docs: ModuleType, tmp_path: Path) -> None:
    kept = '<link rel="canonical" href="https://x/"><a href="https://y/">y</a><script src="assets/a.js"></script>'
    (tmp_path / "a.html").write_text(kept)
    docs.look(tmp_path)
    (tmp_path / "b.html").write_text('<p><script async src="https://cdn.example/x.js"></script><img src=//i.example/p>')
    (tmp_path / "c.css").write_text("@font-face{src:url(https://fonts.example/f.woff2)}")
    with pytest.raises(docs.Broken) as caught:
        docs.look(tmp_path)
    assert str(caught.value).split("\n      ") == [
        "b.html loads //i.example/p",
        "b.html loads https://cdn.example/x.js",
        "c.css loads https://fonts.example/f.woff2",
    ]


def test_no_font_is_asked_of_another_host() -> None:
    assert tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["theme"]["font"] is False
