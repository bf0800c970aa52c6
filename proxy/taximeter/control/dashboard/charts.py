"""Charts as SVG, made by pygal on the server: no script, colours from the page's style sheet, every bar a link.

pygal is imported with the first chart, so that a control process nobody looks at stays small.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import msgspec
from markupsafe import Markup

from taximeter.core.figures import short
from taximeter.core.visible import visible

COLOURS = 7
"""Six groups, and grey for the rest: the style sheet's --series-0 … --series-6 (Okabe and Ito's palette, which
people with any colour vision tell apart)."""
SCOPE = "pygal-chart"
WIDTH, HEIGHT = 720, 260
PICTURES = 16
"""Charts kept: a page has one or two, of 20 to 80 KB each."""
_STEPS = (1, 2, 3, 4, 6, 8, 12, 24)
"""How many bars there may be from one written label to the next: of hours, midnight is always one."""
_UNWANTED = ("style", "script", "desc")
_FOR_SCRIPTS = ("plot text-overlay", "plot tooltip-overlay")


class Mark(msgspec.Struct, frozen=True):
    """One bar's part, one point or one span."""

    value: float
    href: str
    told: str
    """What it says when pointed at."""
    until: float | None = None
    """End of a span."""


class Series(msgspec.Struct, frozen=True):
    """What one colour stands for."""

    name: str
    marks: tuple[Mark | None, ...]
    colour: int = 0


@lru_cache(maxsize=PICTURES)
def stacked(
    series: tuple[Series, ...], labels: tuple[str, ...], title: str, format_value: Callable[[float], str] = short
) -> Markup:
    """Bars over time, the series on top of each other. `labels`: one a window; at most seven of them are written.

    What has been drawn of the very same figures is not drawn again.
    """
    chart = _chart("StackedBar", title, format_value)
    chart.x_labels = list(labels)
    chart.x_labels_major_every = next((step for step in _STEPS if len(labels) <= 7 * step), _STEPS[-1])
    chart.show_minor_x_labels = False
    for each in series:
        chart.add(visible(each.name), [None if mark is None else _told(mark, mark.value) for mark in each.marks])
    return _svg(chart, [each.colour for each in series])


@lru_cache(maxsize=PICTURES)
def lines(
    series: tuple[Series, ...], labels: tuple[str, ...], title: str, format_value: Callable[[float], str]
) -> Markup:
    """Lines over time, a point a window. Where a window has none, the line is broken: nothing is known there."""
    chart = _chart("Line", title, format_value)
    chart.x_labels = list(labels)
    chart.x_labels_major_every = next((step for step in _STEPS if len(labels) <= 7 * step), _STEPS[-1])
    chart.show_minor_x_labels = False
    chart.allow_interruptions = True
    chart.include_x_axis = True
    chart.dots_size = 3
    for each in series:
        chart.add(visible(each.name), [None if mark is None else _told(mark, mark.value) for mark in each.marks])
    return _svg(chart, [each.colour for each in series])


def spans(series: Sequence[Series], title: str, format_x: Callable[[float], str]) -> Markup:
    """A line for each mark from `value` to `until`, the first at the top: what happened beside what, how long."""
    count = sum(len(each.marks) for each in series)
    chart = _chart("XY", title, lambda _: "", height=min(640, max(160, 60 + 14 * count)))
    chart.x_value_formatter = format_x
    chart.allow_interruptions = True
    chart.show_y_labels = chart.show_y_guides = False
    chart.dots_size = 3
    chart.range = (0, count + 1)
    drawn = [(at, mark) for at, each in enumerate(series) for mark in each.marks if mark is not None]
    lines: list[list[Any]] = [[] for _ in series]
    for line, (at, mark) in enumerate(sorted(drawn, key=lambda each: each[1].value)):
        y = count - line
        end = mark.value if mark.until is None else mark.until
        lines[at] += [_told(mark, (mark.value, y)), _told(mark, (end, y)), (None, None)]
    for each, points in zip(series, lines, strict=True):
        chart.add(visible(each.name), points)
    return _svg(chart, [each.colour for each in series])


def style_sheet() -> str:
    """pygal's own style sheet for these charts, its colours our variables."""
    chart = _chart("StackedBar", "", short)
    chart.uuid = "taximeter"
    for _ in range(COLOURS):
        chart.add("", [1])
    found: list[str] = []

    def keep(root: Any) -> Any:
        found.extend(node.text or "" for node in root.iter("style"))
        return root

    chart.xml_filters = [keep]
    chart.render_tree()
    return "\n".join(found).replace("#chart-taximeter", f".{SCOPE}")


@cache
def load() -> tuple[Any, Any]:
    """pygal and the look of its charts. Not imported with this module: control is ready the sooner."""
    import pygal  # type: ignore[import-untyped]
    from pygal.style import Style  # type: ignore[import-untyped]

    # Its finder for map plug-ins speaks a protocol importlib has left, and would make every later import warn of it.
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]
    look = Style(
        background="transparent",
        plot_background="transparent",
        foreground="var(--ink-soft)",
        foreground_strong="var(--ink)",
        foreground_subtle="var(--line)",
        guide_stroke_color="var(--line)",
        major_guide_stroke_color="var(--line)",
        guide_stroke_dasharray="0",
        major_guide_stroke_dasharray="0",
        colors=tuple(f"var(--series-{number})" for number in range(COLOURS)),
        value_colors=("var(--ink)",) * COLOURS,
        font_family="inherit",
        label_font_size=12,
        major_label_font_size=12,
        opacity="1",
        opacity_hover="1",
        stroke_opacity="1",
        transition="0s",
    )
    return pygal, look


@cache
def _plain(kind: str) -> Any:
    """A pygal chart without what takes most of its time and is of no use here."""

    class Plain(getattr(load()[0], kind)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            """pygal's own (what is in the state of a rendering goes first), without calling itself three times over."""
            if name != "state" and not name.startswith("__"):
                state = object.__getattribute__(self, "state")
                if state is not None and name in state.__dict__:
                    return state.__dict__[name]
            return object.__getattribute__(self, name)

        def _tooltip_data(self, *_: Any, **__: Any) -> None:
            """Elements for pygal's script, which no page loads."""

    Plain.__name__ = kind  # it makes class names of it
    return Plain


def _chart(kind: str, title: str, format_value: Callable[[float], str], height: int = HEIGHT) -> Any:
    _, look = load()
    chart = _plain(kind)(
        style=look,
        js=(),
        width=WIDTH,
        height=height,
        show_legend=False,
        margin=6,
        spacing=8,
        min_scale=3,
        max_scale=6,
        include_x_axis=True,
        truncate_label=-1,
        value_formatter=format_value,
        disable_xml_declaration=True,
    )
    chart.title = None
    chart.told = visible(title)
    return chart


def _told(mark: Mark, value: Any) -> dict[str, Any]:
    return {
        "value": value,
        "xlink": {"href": mark.href, "target": "_self", "tabindex": "-1"},
        "tooltip": visible(mark.told),
    }


def _svg(chart: Any, colours: Sequence[int]) -> Markup:
    """The picture without what a page must not carry (scripts, styles) or does not need (data for scripts, empty bars).

    Its links are left out of the tab order: the table beside each chart holds the same ones.
    """

    def clean(root: Any) -> Any:
        for parent in list(root.iter()):
            for node in list(parent):
                if node.tag in _UNWANTED or not isinstance(node.tag, str) or node.get("class") in _FOR_SCRIPTS:
                    parent.remove(node)
        for bars in root.iter("g"):
            name = bars.get("class", "")
            if name.startswith("series serie-"):
                at = int(name.split("-")[1].split()[0])
                bars.set("class", f"series color-{colours[at]}")
                for bar in list(bars.iter("g")):
                    for child in list(bar):
                        if child.get("class") == "bar" and child.find("a") is None:
                            bar.remove(child)
        root.attrib.pop("id", None)
        root.set("role", "img")
        root.set("aria-label", chart.told)
        root.find("title").text = chart.told
        return root

    chart.xml_filters = [clean]
    return Markup(chart.render())  # noqa: S704 - an XML writer escaped every name in it
