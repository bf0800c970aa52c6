from xml.etree import ElementTree

from present import present
from taximeter.control.dashboard import charts
from taximeter.control.dashboard.charts import Mark, Series

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
EVIL = '<script>alert("x")</script>'


def bars():
    first = Series(EVIL, (Mark(1, "/a?b=1&c=2", "one"), None, Mark(3, "/c", f"three {EVIL}")), 0)
    return ElementTree.fromstring(
        charts.stacked((first, Series("rest", (None, Mark(2, "/b", "two"), None), 6)), ("x", "y", "z"), f"Cost {EVIL}")
    )


def test_every_bar_is_a_link_that_says_what_it_is():
    links = bars().findall(f".//{SVG}a")
    assert [link.get(HREF) for link in links] == ["/a?b=1&c=2", "/c", "/b"]
    assert [link.findtext(f"{SVG}title") for link in links] == ["one", f"three {EVIL}", "two"]
    assert {link.get("tabindex") for link in links} == {"-1"}  # the table beside it has the same links


def test_a_chart_carries_no_script_style_or_id():
    svg = bars()
    assert not [node for node in svg.iter() if node.tag.removeprefix(SVG) in ("script", "style")]
    assert not [node for node in svg.iter() if node.get("style") or node.get("id")]
    assert svg.get("role") == "img" and svg.get("aria-label") == f"Cost {EVIL}"


def test_bars_are_as_high_as_their_values_and_have_their_group_s_colour():
    svg = bars()
    heights = [float(rect.get("height")) for rect in svg.iter(f"{SVG}rect") if "reactive" in rect.get("class")]
    assert round(heights[1] / heights[0], 6) == 3 and round(heights[2] / heights[0], 6) == 2
    colours = [group.get("class") for group in svg.iter(f"{SVG}g") if group.find(f"{SVG}g[@class='bars']") is not None]
    assert colours == ["series color-0", "series color-6"]


def test_spans_run_from_start_to_end_the_first_on_top():
    series = [Series("llm", (Mark(5, "/late", "late", 9), Mark(0, "/early", "early", 4)), 0)]
    svg = ElementTree.fromstring(charts.spans(series, "Calls", str))
    dots: dict[str | None, list[tuple[float, ...]]] = {}
    for link in svg.iter(f"{SVG}a"):
        circle = present(link.find(f"{SVG}circle"))
        dots.setdefault(link.get(HREF), []).append(tuple(float(circle.attrib[c]) for c in ("cx", "cy")))
    (early, early_end), (late, late_end) = dots["/early"], dots["/late"]
    assert early[0] < early_end[0] < late[0] < late_end[0] and early[1] == early_end[1] < late[1]


def test_the_style_sheet_takes_its_colours_from_the_page():
    sheet = charts.style_sheet()
    assert "#chart" not in sheet and ".pygal-chart" in sheet and "googleapis" not in sheet
    assert all(f"var(--series-{number})" in sheet for number in range(charts.COLOURS))
