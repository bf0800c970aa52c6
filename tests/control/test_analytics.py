from decimal import Decimal

import pytest

from control_plane import DAY_US, HOUR_US, NOON_US, embedding, record
from taximeter.core.prices import Card, Rates

NOW_US = NOON_US + 14 * DAY_US
"""2026-11-17T12:00:00Z, a Tuesday."""
CARDS = {
    ("openai", "gpt-4o-mini"): Card(ref="a", rates=Rates(input=150_000, cached_input=75_000, output=600_000)),
    ("openai", "gpt-4o"): Card(ref="b", rates=Rates(input=2_500_000, cached_input=1_250_000, output=10_000_000)),
    ("mistral", "small"): Card(ref="c", rates=Rates(input=100_000, output=300_000)),
}


@pytest.fixture
async def asked(start):
    return await start(now_us=lambda: NOW_US, card=lambda provider, model, at: CARDS.get((provider, model)))


def at(days, number=0, **given):
    """A call that ended `days` days before now."""
    return record(number, ended_at=NOW_US - int(days * DAY_US), **given)


async def test_trends_compare_with_the_range_before(asked):
    await asked.add(
        at(10, 1, cost_nusd=100_000), at(9, 2, cost_nusd=100_000), at(8, 3, request_model="old", cost_nusd=50_000),
        at(3, 4, cost_nusd=300_000), at(1, 5, request_model="new", cost_nusd=1_000),
    )  # fmt: skip
    answer = await asked.get("/usage/trends", group_by="model")
    assert (answer["from"], answer["to"]) == ("2026-11-10T12:00:00Z", "2026-11-17T12:00:00Z")
    assert answer["before_from"] == "2026-11-03T12:00:00Z"
    found = {each["model"]: (each["requests_change"], each["cost_change"]) for each in answer["groups"]}
    assert found == {"gpt-4o-mini": (-0.5, 0.5), "old": (-1, -1), "new": (None, None)}
    assert answer["groups"][0]["model"] == "gpt-4o-mini"  # what moved most comes first
    total = await asked.get("/usage", **{"from": answer["from"], "to": answer["to"]})
    assert answer["total"]["now"]["requests"] == total["usage"]["requests"] == 2
    assert answer["total"]["now"]["estimated_cost_usd"] == total["estimated_cost_usd"]


async def test_peaks_are_hours_of_the_question_s_zone(asked):
    await asked.add(*(at(day, number) for number, day in enumerate((3, 2, 1))), at(5 / 24, 9))
    utc = await asked.get("/usage/peaks")
    assert [each["hour"] for each in utc["hours"]] == list(range(24))
    assert {each["hour"]: each["usage"]["requests"] for each in utc["hours"] if each["usage"]["requests"]} == {
        12: 3,
        7: 1,
    }
    assert utc["hours"][12]["share"] == 0.75
    berlin = await asked.get("/usage/peaks", tz="Europe/Berlin")
    assert berlin["hours"][13]["usage"] == utc["hours"][12]["usage"]
    assert utc["busiest"][0] == {
        "start": "2026-11-14T12:00:00Z", "end": "2026-11-14T13:00:00Z", "usage": utc["busiest"][0]["usage"],
    }  # fmt: skip


async def test_a_month_like_the_weeks_before_is_foretold_exactly(asked):
    weekly = (1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000, 600_000, 700_000)
    await asked.add(*(at(day + 1 / 24, day, cost_nusd=weekly[day % 7]) for day in range(1, 57)))
    answer = await asked.get("/usage/forecast")
    assert (answer["month"], answer["days_left"], answer["basis_days"]) == ("2026-11", 13, 55)
    assert (answer["mean_error"], answer["bias"]) == (0, 0) and answer["backtests"] == 55 - 14 - 7 + 1
    spent = sum(weekly[day % 7] for day in range(1, 17))  # 1 to 16 November
    rest = sum(weekly[day % 7] for day in range(-13, 1))  # 17 to 30
    assert Decimal(str(answer["spent_usd"])) == Decimal(spent).scaleb(-9)
    assert Decimal(str(answer["month_end_usd"])) == Decimal(spent + rest).scaleb(-9)
    assert answer["low_usd"] == answer["month_end_usd"] == answer["high_usd"]


async def test_with_less_than_a_week_nothing_is_foretold(asked):
    await asked.add(at(2, 1), at(1, 2))
    answer = await asked.get("/usage/forecast")
    assert (answer["month_end_usd"], answer["mean_error"], answer["basis_days"]) == (None, None, 1)
    assert Decimal(str(answer["spent_usd"])) == Decimal("0.000066")
    assert (await asked.get("/usage/forecast", workspace="nobody"))["month_end_usd"] is None


async def test_what_the_same_tokens_cost_elsewhere(asked):
    await asked.add(
        at(2, 1, task="extract", request_model="gpt-4o", cost_nusd=525_000),
        at(2, 2, task="extract", cost_nusd=31_500),
        at(1, 3, task="extract", provider="local", request_model="llama", cost_nusd=None),
        embedding(4, ended_at=NOW_US - HOUR_US, task="extract"),
    )
    answer = await asked.get("/usage/alternatives", candidate=["mistral/small", "nobody/none"])
    assert answer["compared"] == ["openai/gpt-4o", "openai/gpt-4o-mini", "mistral/small"]
    assert answer["unpriced"] == ["local/llama", "nobody/none"] and "same tokens" in answer["meaning"]
    (task,) = answer["tasks"]
    assert (task["requests"], task["left_out_requests"], task["input_tokens"], task["output_tokens"]) == (2, 1, 200, 60)
    costs = [(each["model"], Decimal(str(each["estimated_cost_usd"]))) for each in task["alternatives"]]
    assert costs == [
        ("small", Decimal("0.000038")),
        ("gpt-4o-mini", Decimal("0.000063")),
        ("gpt-4o", Decimal("0.00105")),
    ]
    assert Decimal(str(task["alternatives"][0]["difference_usd"])) == Decimal("0.000038") - Decimal("0.0005565")


async def test_what_makes_no_sense_is_refused(asked):
    for path, said in (
        ("/usage/forecast?from=2026-11-01", "takes neither"),
        ("/usage/alternatives?candidate=gpt-4o", "provider/model"),
        ("/usage/trends?group_by=colour", "Cannot group by"),
    ):
        answer = await asked.client.get(path)
        assert (answer.status_code, said in answer.json()["error"]["message"]) == (400, True), path


async def test_a_workspace_s_key_is_told_of_its_own(asked):
    _, secret = asked.keys.create("acme")
    await asked.add(at(1, 1), at(1, 2, workspace="beta", request_model="gpt-4o"))
    headers = {"authorization": f"Bearer {secret}"}
    for path in ("trends", "peaks", "forecast", "alternatives"):
        assert (await asked.client.get(f"/usage/{path}?workspace=beta", headers=headers)).status_code == 404
    answer = (await asked.client.get("/usage/alternatives", headers=headers)).json()
    assert answer["compared"] == ["openai/gpt-4o-mini"] and answer["tasks"][0]["requests"] == 1
