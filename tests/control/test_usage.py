import asyncio
from decimal import Decimal

import msgspec

from control_plane import DAY_US, HOUR_US, NOON_US, embedding, record
from taximeter.config import Settings
from taximeter.config.settings import PriceCodeSettings
from taximeter.core.record import Operation, Outcome, Source

NOTHING = {
    "requests": 0, "errors": 0, "unknown_requests": 0, "total_tokens": 0, "counted_tokens": 0, "estimated_tokens": 0,
    "llm": {"requests": 0, "input_tokens": 0, "cached_input_tokens": 0, "output_tokens": 0,
            "reasoning_output_tokens": 0},
    "embedding": {"requests": 0, "input_tokens": 0},
    "rerank": {"requests": 0, "search_units": 0, "input_tokens": 0},
}  # fmt: skip


def rerank(number, **given):
    told = {
        "api": "rerank", "operation": Operation.RERANK, "provider": "cohere", "request_model": "rerank-v3.5",
        "input_tokens": None, "cached_input_tokens": None, "output_tokens": None, "reasoning_output_tokens": None,
        "total_tokens": None, "search_units": 2, "cost_nusd": 4_000_000,
    }  # fmt: skip
    return record(number, **(told | given))


async def test_nothing_recorded_is_zeros_in_the_documented_shape(control):
    assert await control.get("/usage") == {
        "from": None, "to": None, "filters": {}, "complete": True, "lag_seconds": 0.0, "usage": NOTHING,
        "estimated_cost_usd": 0, "unpriced_requests": 0, "groups": [], "series": [],
    }  # fmt: skip


async def test_totals_tell_llm_embedding_and_rerank_apart_and_cost_is_exact(control):
    await control.add(record(1), record(2, cost_nusd=1), embedding(3), rerank(4))
    answer = await control.client.get("/usage")
    shown = msgspec.json.decode(answer.content, type=dict[str, object])
    assert shown["usage"] == {
        "requests": 4, "errors": 0, "unknown_requests": 0, "total_tokens": 276, "counted_tokens": 0,
        "estimated_tokens": 0,
        "llm": {"requests": 2, "input_tokens": 200, "cached_input_tokens": 40, "output_tokens": 60,
                "reasoning_output_tokens": 20},
        "embedding": {"requests": 1, "input_tokens": 16},
        "rerank": {"requests": 1, "search_units": 2, "input_tokens": 0},
    }  # fmt: skip
    assert b'"estimated_cost_usd":0.004033321,' in answer.content


async def test_cost_is_null_where_nothing_has_a_price_and_tokens_are_not_invented(control):
    await control.add(
        record(1, cost_nusd=None, request_model="home-made"),
        record(2, cost_nusd=None, input_tokens=None, output_tokens=None, total_tokens=None, input_source=Source.NONE,
               output_source=Source.NONE, workspace="beta"),
    )  # fmt: skip
    shown = await control.get("/usage", group_by="workspace")
    assert (shown["estimated_cost_usd"], shown["unpriced_requests"], shown["usage"]["unknown_requests"]) == (None, 1, 1)
    assert [(each["workspace"], each["estimated_cost_usd"]) for each in shown["groups"]] == [
        ("acme", None),
        ("beta", None),
    ]


async def test_groups_and_series_add_up_to_the_totals(control):
    await control.add(
        *(
            record(n, ended_at=NOON_US + n * HOUR_US, workspace=f"w{n % 3}", task=("index", None)[n % 2])
            for n in range(9)
        ),
        *(embedding(n, ended_at=NOON_US + n * HOUR_US, workspace=f"w{n % 2}") for n in range(10, 15)),
    )
    shown = await control.get("/usage", group_by=["workspace,model", "task"], window="hour")
    assert len(shown["groups"]) == 8 and len(shown["series"]) == 14
    for parts in (shown["groups"], shown["series"]):
        for path in (("requests",), ("total_tokens",), ("llm", "input_tokens"), ("embedding", "input_tokens")):

            def value(part, path=path):
                found = part["usage"]
                for name in path:
                    found = found[name]
                return found

            assert sum(value(part) for part in parts) == value(shown)
        assert sum(Decimal(str(part["estimated_cost_usd"])) for part in parts) == Decimal(
            str(shown["estimated_cost_usd"])
        )
    assert {(each["workspace"], each["model"], each["task"]) for each in shown["groups"]} >= {
        ("w0", "gpt-4o-mini", "index"),
        ("w1", "text-embedding-3-small", None),
    }


async def test_every_filter_narrows_the_answer(control):
    await control.add(
        record(1, track="t1", document="d1", task="index", end_user="u1", key_id="k1", service_tier="flex"),
        embedding(2, workspace="beta", provider="jina"),
    )
    one = {
        "workspace": "acme", "track": "t1", "document": "d1", "task": "index", "end_user": "u1", "key_id": "k1",
        "service_tier": "flex", "model": "gpt-4o-mini", "provider": "openai", "operation": "llm",
    }  # fmt: skip
    for name, value in one.items():
        shown = await control.get("/usage", **{name: value})
        assert (shown["usage"]["requests"], shown["filters"]) == (1, {name: value}), name
        assert (await control.get("/usage", **{name: "other" if name == "operation" else "no"}))["usage"] == NOTHING
    assert (await control.get("/usage", workspace="acme,beta"))["usage"]["requests"] == 2
    assert (await control.get("/usage", task=""))["usage"]["requests"] == 1
    both = await control.client.get("/usage?model[]=gpt-4o-mini&model%5B%5D=text-embedding-3-small")
    assert both.json()["filters"] == {"model": ["gpt-4o-mini", "text-embedding-3-small"]}
    assert both.json()["usage"]["requests"] == 2


async def test_ranges_are_half_open_and_days_are_those_of_the_zone(control):
    midnight = NOON_US - 12 * HOUR_US
    await control.add(
        record(1, ended_at=midnight - 1), record(2, ended_at=midnight), record(3, ended_at=midnight + DAY_US)
    )
    day = await control.get("/usage", **{"from": "2026-11-03", "to": "2026-11-04"})
    assert (day["usage"]["requests"], day["from"], day["to"]) == (1, "2026-11-03T00:00:00Z", "2026-11-04T00:00:00Z")
    berlin = await control.get("/usage", window="day", tz="Europe/Berlin", **{"from": "2026-11-03"})
    assert [(each["start"], each["usage"]["requests"]) for each in berlin["series"]] == [
        ("2026-11-02T23:00:00Z", 2),
        ("2026-11-03T23:00:00Z", 1),
    ]
    exact = await control.get("/usage", **{"from": "2026-11-02T23:59:59.999999Z", "to": "2026-11-03T00:00:00Z"})
    assert exact["usage"]["requests"] == 1


async def test_a_question_waits_for_the_journal_and_says_when_it_could_not(control):
    control.waits.complete, control.waits.lag_seconds = False, 7.5
    shown = await control.get("/usage")
    assert (shown["complete"], shown["lag_seconds"]) == (False, 7.5)
    assert control.waits.asked == [("drain", 5.0, ("history",))]


async def test_after_waits_until_another_nodes_request_is_in_the_shared_history(control):
    await control.add(record(1))
    asked = asyncio.ensure_future(control.get("/usage", after=["req-1", "req-2"]))
    while not control.waits.asked:
        await asyncio.sleep(0)
    await control.add(record(2))
    shown = await asked
    assert (shown["complete"], shown["usage"]["requests"]) == (True, 2)


async def test_after_is_bounded_in_time_and_number(control, monkeypatch):
    monkeypatch.setattr("taximeter.control.services.querying.AFTER_S", 0.05)
    assert (await control.get("/usage", after="never"))["complete"] is False
    answer = await control.client.get("/usage", params={"after": ",".join(f"r{n}" for n in range(101))})
    assert answer.status_code == 400


async def test_a_track_has_three_views_and_its_documents(control):
    control.waits.flying = {("acme", "t1"): 2}
    await control.add(
        record(1, track="t1", document="doc-1", audio_input_tokens=3, rejected_prediction_tokens=4),
        record(2, track="t1", document="doc-2", response_model="gpt-4o-mini-2024-07-18", input_tokens=1_000),
        embedding(3, track="t1", document="doc-1"),
        record(4, track="t2"),
    )
    shown = await control.get("/usage/tracks/t1")
    assert shown["token_usage"] == {
        "llm_model": "gpt-4o-mini-2024-07-18", "llm_input_tokens": 1_100, "llm_output_tokens": 60,
        "embedding_model": "text-embedding-3-small", "embedding_tokens": 16,
    }  # fmt: skip
    assert shown["metrics"] == {
        "prompt_tokens": 1_100, "completion_tokens": 60, "total_tokens": 1_160, "cached_tokens": 40,
        "input_cached_tokens": 40, "input_audio_tokens": 3, "output_reasoning_tokens": 20, "output_audio_tokens": 0,
        "output_accepted_prediction_tokens": 0, "output_rejected_prediction_tokens": 4, "call_count": 2,
        "model": "gpt-4o-mini-2024-07-18", "input_usage": 1_100, "input": 1_060, "output_usage": 60, "output": 40,
        "total_usage": 1_160,
    }  # fmt: skip
    assert shown["usage"]["requests"] == 3 and shown["estimated_cost_usd"] == 0.00006632
    assert shown["documents"]["doc-1"] == {
        "llm_model": "gpt-4o-mini", "llm_input_tokens": 100, "llm_output_tokens": 30,
        "embedding_model": "text-embedding-3-small", "embedding_tokens": 16,
    }  # fmt: skip
    assert shown["documents"]["doc-2"]["embedding_model"] is None
    assert (shown["workspace"], shown["in_flight"], shown["complete"]) == ("acme", 2, True)
    assert (shown["first_at"], shown["last_at"]) == ("2026-11-03T12:00:01Z", "2026-11-03T12:00:03Z")


PRICES = {"rag_embedding": "0.0001", "rag_llm_input": "0.0015", "rag_llm_output": "0.002", "rag_indexation": "0.001"}


def priced(**prices):
    """Settings with these prices of one's own."""
    return Settings(price_codes=msgspec.convert(prices, PriceCodeSettings))


async def test_a_track_at_the_operators_own_prices(start):
    """The example of the billing backend's documents: 93, 7,850 and 462 tokens, one chunk."""
    control = await start(settings=priced(**PRICES))
    await control.add(record(1, track="t", input_tokens=7_850, output_tokens=462))
    await control.add(embedding(2, track="t", input_tokens=93))
    assert "price_codes" not in await control.get("/usage/tracks/t")
    shown = await control.get("/usage/tracks/t", price_codes=1, chunks=1)
    assert shown["price_codes"] == {
        "rag_embedding": {"quantity": 93, "unit": 1_000, "price_usd": 0.0001, "cost_usd": 0.0000093},
        "rag_llm_input": {"quantity": 7_850, "unit": 1_000, "price_usd": 0.0015, "cost_usd": 0.011775},
        "rag_llm_output": {"quantity": 462, "unit": 1_000, "price_usd": 0.002, "cost_usd": 0.000924},
        "rag_indexation": {"quantity": 1, "unit": 1, "price_usd": 0.001, "cost_usd": 0.001},
        "left_out": [],
        "estimated_cost_usd": 0.0137083,
    }
    unsaid = (await control.get("/usage/tracks/t", price_codes="true"))["price_codes"]
    assert unsaid["rag_indexation"] == {"quantity": None, "unit": 1, "price_usd": 0.001, "cost_usd": None}
    assert (unsaid["left_out"], unsaid["estimated_cost_usd"]) == (["rag_indexation"], 0.0127083)


async def test_what_has_no_price_is_left_out_of_the_bill_by_name(start):
    control = await start(settings=priced(rag_llm_input="0.3"))
    await control.add(record(1, track="t", input_tokens=10, output_tokens=20))
    shown = (await control.get("/usage/tracks/t", price_codes=1, chunks=2))["price_codes"]
    assert (shown["left_out"], shown["estimated_cost_usd"]) == (["rag_llm_output", "rag_indexation"], 0.003)
    assert shown["rag_llm_output"] == {"quantity": 20, "unit": 1_000, "price_usd": None, "cost_usd": None}
    unpriced = await start()
    await unpriced.add(record(1, track="t"))
    assert "estimated_cost_usd" not in (await unpriced.get("/usage/tracks/t", price_codes=1))["price_codes"]


async def test_an_unknown_track_is_zeros_and_null_models(control):
    shown = await control.get("/usage/tracks/nobody")
    assert shown["workspace"] is None and shown["usage"] == NOTHING and shown["documents"] == {}
    assert shown["token_usage"] == {
        "llm_model": None, "llm_input_tokens": 0, "llm_output_tokens": 0, "embedding_model": None,
        "embedding_tokens": 0,
    }  # fmt: skip


async def test_a_track_of_several_workspaces_needs_one_named(control):
    await control.add(record(1, track="t"), record(2, track="t", workspace="beta", input_tokens=5))
    answer = await control.client.get("/usage/tracks/t")
    assert answer.status_code == 400 and "acme, beta" in answer.json()["error"]["message"]
    assert (await control.get("/usage/tracks/t", workspace="beta"))["token_usage"]["llm_input_tokens"] == 5


async def test_wait_returns_when_nothing_of_the_track_is_in_flight_or_says_incomplete(control):
    await control.add(record(1, track="t"))
    assert (await control.get("/usage/tracks/t", wait=2.5))["complete"] is True
    control.waits.settles = False
    assert (await control.get("/usage/tracks/t", wait=0.1))["complete"] is False
    assert ("settled", "t", 2.5, None) in control.waits.asked
    assert (await control.client.get("/usage/tracks/t", params={"wait": 301})).status_code == 400


async def test_closing_a_track_tells_the_webhook_once_it_is_drained(start):
    closed = []

    async def close(workspace, track):
        closed.append((workspace, track))
        return True

    control = await start(close_track=close)
    await control.add(record(1, track="t"))
    answer = await control.client.post("/usage/tracks/t/close")
    assert (answer.status_code, answer.json()) == (200, {"track": "t", "workspace": "acme", "webhook": "queued"})
    assert closed == [("acme", "t")]
    assert (await control.client.post("/usage/tracks/other/close")).status_code == 404


async def test_closing_a_track_without_a_webhook_says_so(control):
    await control.add(record(1, track="t"))
    assert (await control.client.post("/usage/tracks/t/close")).json()["webhook"] == "off"


async def test_a_request_shows_every_attempt_under_the_records_own_names(control):
    await control.add(
        record(7, outcome=Outcome.UPSTREAM_ERROR, status=500, input_tokens=None, output_tokens=None, cost_nusd=None),
        record(8, request_id="req-7", attempt=2),
    )
    shown = await control.get("/usage/requests/req-7")
    first, second = shown["data"]
    assert (first["attempt"], first["outcome"], first["input_tokens"], first["cost_usd"]) == (
        1,
        "upstream_error",
        None,
        None,
    )
    assert (second["attempt"], second["cost_nusd"], second["cost_usd"]) == (2, 33_000, 0.000033)
    assert (second["started_at"], second["ended_at"]) == ("2026-11-03T12:00:07.750000Z", "2026-11-03T12:00:08Z")
    assert second["usage"] == {"prompt_tokens": 100}
    assert (await control.client.get("/usage/requests/none")).status_code == 404


async def test_a_batch_shows_itself_first_and_its_lines_page_by_page_once(control):
    asked = record(7, deferred="b1", input_tokens=None, output_tokens=None, total_tokens=None, cost_nusd=None)
    names = [f"line-{n}" for n in range(1_001)]
    lines = [record(8 + n, request_id="req-7", attempt=2, deferred="b1", line=name) for n, name in enumerate(names)]
    await control.add(*lines[:600], asked, *lines[600:])
    shown = await control.get("/usage/requests/req-7")
    first, *some = shown["data"]
    assert first["attempt"] == 1 and len(some) <= 1_000
    rest = await control.get("/usage/requests/req-7", page=shown["next_page"])
    assert [each["line"] for each in (*some, *rest["data"])] == names and rest["next_page"] is None
    assert (await control.client.get("/usage/requests/req-7?page=bogus")).status_code == 400
    html = (await control.client.get("/dashboard/requests/req-7")).text
    assert html.count("<h2>Line line-") == 50 and "page by page" in html and "<h2>Attempt 1</h2>" in html


async def test_events_page_through_everything_once_newest_first(control):
    await control.add(*(record(n) for n in range(25)))
    seen, page, pages = [], None, 0
    while True:
        shown = await control.get("/usage/events", limit=10, **({"page": page} if page else {}))
        seen += [each["request_id"] for each in shown["data"]]
        page, pages = shown["next_page"], pages + 1
        if page is None:
            break
    assert seen == [f"req-{n}" for n in reversed(range(25))] and pages == 3


async def test_events_filter_by_outcome_too(control):
    await control.add(record(1), record(2, outcome=Outcome.TIMEOUT), record(3, outcome=Outcome.REFUSED))
    shown = await control.get("/usage/events", outcome="timeout,refused")
    assert [each["request_id"] for each in shown["data"]] == ["req-3", "req-2"]


BAD_QUESTIONS = (
    ("/usage?worksapce=a", "worksapce", "Allowed: after, document, end_user"),
    ("/usage?group_by=colour", "group_by", "Cannot group by 'colour'. Allowed: workspace"),
    ("/usage?window=week", "window", "Allowed: minute, hour, day, month"),
    ("/usage?from=yesterday", "from", "RFC 3339"),
    ("/usage?to=2026-13-01", "to", "RFC 3339"),
    ("/usage?from=2026-11-03&to=2026-11-01", "from", "after 'to'"),
    ("/usage?tz=Mars/Olympus", "tz", "IANA"),
    ("/usage?operation=chat", "operation", "llm, embedding, rerank, other"),
    ("/usage/events?limit=0", "limit", ">= 1"),
    ("/usage/events?limit=ten", "limit", "int"),
    ("/usage/events?page=bogus", "page", ""),
    ("/usage/tracks/t?wait=soon", "wait", "float"),
    ("/usage/tracks/t?group_by=x", "group_by", "Allowed: after, chunks, from, price_codes, to, tz, wait, workspace"),
    ("/usage/tracks/t?price_codes=1&chunks=-1", "chunks", ">= 0"),
    ("/usage/tracks/t?chunks=1", "chunks", "for price_codes=1"),
    ("/usage/requests/r?x=1", "x", "Allowed: page"),
)


async def test_a_bad_question_is_told_what_is_allowed(control):
    for path, param, says in BAD_QUESTIONS:
        answer = await control.client.get(path)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, param, "bad_request"), path
        assert set(error) == {"message", "type", "param", "code"} and says in error["message"], error
        assert answer.headers["x-taximeter-error"] == "bad_request"
