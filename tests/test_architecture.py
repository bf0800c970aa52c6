"""docs/architecture.md is true: its words are the code's, its rooms are all the rooms, its stops are few."""

from __future__ import annotations

import ast
import importlib
import re

import pytest

from architecture import PAGE, ROOT, glossary, section

MOST_WORDS, MOST_STOPS = 40, 12


def test_the_words_are_few_and_each_stands_once() -> None:
    words = [word for word, _, _ in glossary()]
    assert 0 < len(words) <= MOST_WORDS
    assert words == sorted(set(words), key=str.lower)


@pytest.mark.parametrize(("word", "place"), [(word, place) for word, place, _ in glossary()])
def test_a_word_is_defined_where_the_page_says(word: str, place: str) -> None:
    module, _, name = place.partition(":")
    found = importlib.import_module(f"taximeter.{module}")
    if name:
        assert hasattr(found, name), place


def test_a_word_is_used_for_one_thing() -> None:
    """No other class in the code has the name of one in the list."""
    names = [place.partition(":")[2] for _, place, _ in glossary() if ":" in place]
    classes = [
        node.name
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert {name: classes.count(name) for name in names if classes.count(name) > 1} == {}


def test_every_room_is_in_the_picture() -> None:
    picture = PAGE.read_text().partition("```\n")[2].partition("```")[0]
    rooms = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert rooms == {room for room in re.findall(r"(\w+)/", picture) if (ROOT / room).is_dir()}


@pytest.mark.parametrize("heading", ["From a socket to the journal", "From the journal to Redis"])
def test_a_walk_has_a_dozen_stops_at_most(heading: str) -> None:
    stops = re.findall(r"^\d+\. ", section(heading), re.MULTILINE)
    assert 0 < len(stops) <= MOST_STOPS


def test_every_file_the_page_names_is_there() -> None:
    named = re.findall(r"`((?:\w+/)+\w*(?:\.py)?)`", PAGE.read_text())
    assert [name for name in named if not ((ROOT / name).exists() or (PAGE.parents[1] / name).exists())] == []
