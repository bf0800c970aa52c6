"""A provider's export, read from each of its forms, against our own days and models."""

import msgspec
import pytest

from taximeter.core.errors import BadRequest
from taximeter.reconcile.exports import Difference, by_model, compare, read
from taximeter.reconcile.rule import Figures

MIDNIGHT = 1_793_664_000
"""2026-11-03T00:00:00Z"""
DAY = 86_400


def bucket(day, *results, hours=24):
    start = MIDNIGHT + day * DAY
    return {"object": "bucket", "start_time": start, "end_time": start + hours * 3_600, "results": list(results)}


def result(model="gpt-4o-mini", kind="completions", **figures):
    told = {"input_tokens": 100, "output_tokens": 30, "input_cached_tokens": 20, "num_model_requests": 1}
    return {"object": f"organization.usage.{kind}.result", "model": model, **(told | figures)}


def page(*buckets):
    return {"object": "page", "data": list(buckets), "has_more": False, "next_page": None}


ONE = page(bucket(0, result(), result("o3", input_tokens=7)), bucket(1))
FIGURES = {
    ("2026-11-03", "gpt-4o-mini"): Figures(100, 20, 30, 1),
    ("2026-11-03", "o3"): Figures(7, 20, 30, 1),
}


@pytest.mark.parametrize(
    "content",
    [
        msgspec.json.encode(ONE),
        msgspec.json.format(msgspec.json.encode(ONE), indent=2),
        msgspec.json.encode([page(ONE["data"][0]), page(ONE["data"][1])]),
        msgspec.json.encode(page(ONE["data"][0])) + b"\n" + msgspec.json.encode(page(ONE["data"][1])) + b"\n",
    ],
    ids=["page", "indented", "pages", "lines"],
)
def test_json_is_read_in_each_layout(content):
    export = read(content)
    assert export.figures == FIGURES and export.operations == {"llm"} and by_model(export)
    assert (export.start_s, export.end_s) == (MIDNIGHT, MIDNIGHT + 2 * DAY)


def test_csv_is_read_by_its_column_names():
    openai = (
        b"\xef\xbb\xbfstart_time,end_time,start_time_iso,project_id,num_model_requests,model,input_tokens,output_tokens,"
        b"input_cached_tokens\n"
        b"1793664000,1793750400,2026-11-03T00:00:00Z,p,1,gpt-4o-mini,60,30,20\n"
        b"1793664000,1793750400,2026-11-03T00:00:00Z,q,,gpt-4o-mini,40,,\n"
        b"1793664000,1793750400,2026-11-03T00:00:00Z,q,1,o3,7,30,20\n"
    )
    plain = b"date,model,prompt_tokens\n2026-11-03,gpt-4o-mini,100\n2026-11-03,o3,7\n"
    assert read(openai).figures == FIGURES and read(openai).operations == set()
    assert read(plain).figures == {key: Figures(each.input_tokens) for key, each in FIGURES.items()}
    assert (read(plain).start_s, read(plain).end_s) == (MIDNIGHT, MIDNIGHT + DAY)


def test_dates_without_dashes_and_credits_are_what_they_say():
    export = read("date,end_time,cost_usd\n20261103,²,-$1.5\n".encode())
    assert export.figures == {("2026-11-03", None): Figures(cost_nusd=-1_500_000_000)}
    assert (export.start_s, export.end_s) == (MIDNIGHT, MIDNIGHT + DAY)
    assert compare(export, {}).difference_ratio == 1.0


def test_hourly_buckets_and_several_projects_add_up_to_days():
    hours = [bucket(0, result(), result(), hours=1), bucket(0, result(), hours=1)]
    hours[1]["start_time"], hours[1]["end_time"] = MIDNIGHT + 7_200, MIDNIGHT + 10_800
    export = read(msgspec.json.encode(page(*hours)))
    assert export.figures == {("2026-11-03", "gpt-4o-mini"): Figures(300, 60, 90, 3)}
    assert (export.start_s, export.end_s) == (MIDNIGHT, MIDNIGHT + 10_800)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "column"),
        (b"a,b\n1,2\n", "needs a column"),
        (b"date,input_tokens\nyesterday,1\n", "Line 2: 'yesterday' is no time"),
        (b"date,input_tokens\n2026-11-03,1.5\n", "Line 2: input_tokens is '1.5', not a count"),
        (b"date,input_tokens\n2026-11-03,nan\n", "not a count"),
        (b"date,cost_usd\n1793664000000,1\n", "'1793664000000' is no time"),
        (b"date,cost_usd\n20261399,1\n", "is no time"),
        (b"date,cost_usd\n2026-11-03,1,50\n", "Line 2 has more cells than there are columns"),
        (msgspec.json.encode(page(bucket(365_000_000, result()))), "a moment is .* not in seconds"),
        (
            b'{"data": [{"start_time": 1, "end_time": 2, "results": [{"object": "organization.costs.result", "amount": '
            b'{"value": 1, "currency": "eur"}}]}]}',
            "'eur', and only USD",
        ),
        (b"\xff\xfe", "neither JSON nor CSV"),
        (b"{", "no page"),
        (b'{"data": 1}', "no page"),
        (b"[]", "empty"),
        (b'{"data": []}', "empty"),
        (msgspec.json.encode(page(bucket(0, result(), result(None)))), "some do not"),
        (msgspec.json.encode(page(bucket(0, result(kind="images")))), "cannot be compared"),
    ],
)
def test_what_is_no_export_is_told(content, why):
    with pytest.raises(BadRequest, match=why):
        read(content)


def test_every_difference_is_named_and_sized():
    mine: dict[tuple[str, str | None], Figures] = {
        ("2026-11-03", "gpt-4o-mini"): Figures(100, 15, 31, 1),
        ("2026-11-04", "gpt-4o-mini"): Figures(5, 0, 1, 1),
    }
    found = compare(read(msgspec.json.encode(ONE)), mine)
    assert found.differences == [
        Difference("2026-11-03", "gpt-4o-mini", "cached_input_tokens", 15, 20, -5),
        Difference("2026-11-03", "gpt-4o-mini", "output_tokens", 31, 30, 1),
        Difference("2026-11-03", "o3", "input_tokens", 0, 7, -7),
        Difference("2026-11-03", "o3", "cached_input_tokens", 0, 20, -20),
        Difference("2026-11-03", "o3", "output_tokens", 0, 30, -30),
        Difference("2026-11-04", "gpt-4o-mini", "input_tokens", 5, 0, 5),
        Difference("2026-11-04", "gpt-4o-mini", "output_tokens", 1, 0, 1),
    ]
    assert (found.compared, found.differing) == (3, 3)
    assert (found.ours, found.theirs) == (Figures(105, 15, 32, 2), Figures(107, 40, 60, 2))
    assert (found.from_, found.to) == ("2026-11-03T00:00:00Z", "2026-11-05T00:00:00Z")


def test_figures_the_export_does_not_tell_are_not_compared():
    export = read(b"date,model,input_tokens\n2026-11-03,gpt-4o-mini,100\n")
    found = compare(export, {("2026-11-03", "gpt-4o-mini"): Figures(100, 20, 30, 1)})
    assert (found.differences, found.theirs.output_tokens) == ([], None)
