"""Each kind of provider, in the shape that is documented: what it is asked, and what its answer comes to here."""

from collections import deque
from hashlib import sha256
from typing import Any

import httpx2
import pytest
from anthropic.types.beta.organization.analytics.beta_analytics_cost_item import BetaAnalyticsCostItem
from anthropic.types.beta.organization.analytics.beta_analytics_usage_item import BetaAnalyticsUsageItem
from openai.types.admin.organization.usage_completions_response import UsageCompletionsResponse
from openai.types.admin.organization.usage_costs_response import UsageCostsResponse

from billing_provider import Billed, Billing
from control_plane import embedding, record, start
from reconciling import DAY_US, UPSTREAMS
from taximeter.config.settings import AuthSettings, ReconcileSettings, Settings, UpstreamSettings
from taximeter.core.record import Operation
from taximeter.keys.rule import digest
from taximeter.reconcile import anthropic, exports, openai_pages
from taximeter.reconcile.pulling import pullers, scope_of
from taximeter.reconcile.rule import PullFailed
from taximeter.reconcile.service import ReconcileService
from taximeter.reconcile.told import By, Span

__all__ = ["start"]

DAY, NEXT = "2026-11-03", "2026-11-04"
SPAN = Span(1_793_664_000, 1_793_664_000 + 2 * 86_400)


def claude(**given):
    told: dict[str, Any] = {"day": DAY, "model": "claude-sonnet-4", "input": 100, "cached": 20, "written": 30}
    return Billed(**(told | {"output": 30, "usd": "0.000033"} | given))


def of_claude(number, **given):
    return record(number, provider="anthropic", upstream="anthropic", request_model="claude-sonnet-4",
                  cache_write_input_tokens=30, **given)  # fmt: skip


@pytest.mark.parametrize("kind", ["anthropic", "anthropic_admin"])
async def test_anthropic_tells_uncached_input_and_cents(house, kind):
    await house.add(of_claude(1), of_claude(2), record(3))
    billed = [
        claude(),
        claude(key="key_2", day=NEXT),
        claude(model="claude-opus-4", input=0, cached=0, written=0, output=5),
    ]
    async with Billing(billed, rows_a_page=2) as billing:
        service = house.service(billing, kind=kind)
        standing = await service.now("bill")
        figures = {each.figure: (each.ours, each.theirs) for each in standing.compared}
        assert figures == {
            "input_tokens": (200, 200),
            "cached_input_tokens": (40, 40),
            "cache_write_input_tokens": (60, 60),
            "output_tokens": (60, 65),
            "cost_nusd": (66_000, 99_000),
        }
        path, query = billing.asked[0]
        assert query["group_by[]"] == ["model"] and query["starting_at"] == ["2026-10-31T00:00:00Z"]
        assert path == ("/v1/organizations/analytics/usage" if kind == "anthropic" else
                        "/v1/organizations/usage_report/messages")  # fmt: skip
        pages = [query.get("page") for path, query in billing.asked if path.endswith("usage")]
        assert pages == ([None, ["2"]] if kind == "anthropic" else [])


async def test_the_older_api_tells_no_cost_by_key_so_none_is_compared(house):
    await house.add(of_claude(1))
    async with Billing([claude()], hints={}) as billing:
        standing = await house.service(billing, kind="anthropic_admin", by="key", names={"key_1": ""}).now("bill")
        assert "cost_nusd" not in {each.figure for each in standing.compared} and standing.state == "agrees"


async def test_anthropic_is_told_which_beta_is_meant():
    assert anthropic.headers("k") == {
        "x-api-key": "k", "anthropic-version": "2023-06-01", "anthropic-beta": "analytics-usage-cost-2026-08-24",
    }  # fmt: skip
    assert "anthropic-beta" not in anthropic.admin_headers("k")


async def test_the_scripted_shapes_are_those_of_the_providers_sdks():
    moments: dict[str, Any] = {"starting_at": f"{DAY}T00:00:00Z", "ending_at": f"{NEXT}T00:00:00Z", "limit": 10}
    moments["group_by[]"] = ["model", "api_key_id", "workspace_id"]
    seconds: dict[str, Any] = {"start_time": SPAN.from_s, "end_time": SPAN.to_s, "limit": 7}
    seconds["group_by[]"] = ["model", "line_item"]
    async with Billing([claude()]) as billing:
        key = {"x-api-key": billing.credential}
        async with httpx2.AsyncClient(base_url=billing.url, headers=key) as client:
            (usage,) = (await client.get("/v1/organizations/analytics/usage", params=moments)).json()["data"]
            (cost,) = (await client.get("/v1/organizations/analytics/cost", params=moments)).json()["data"]
            BetaAnalyticsUsageItem.model_validate(usage)
            BetaAnalyticsCostItem.model_validate(cost)
            pages = [(await client.get(f"/organization/{path}", params=seconds)).json()
                     for path in ("usage/completions", "costs")]  # fmt: skip
            UsageCompletionsResponse.model_validate(pages[0])
            UsageCostsResponse.model_validate(pages[1])


@pytest.mark.parametrize(
    ("line_item", "model"),
    [
        ("gpt-4o, cached input", "gpt-4o"), ("gpt-4o, batch, cached input", "gpt-4o"), ("gpt-4o", "gpt-4o"),
        ("o3, batch, input", "o3, batch"), ("web search tool calls", "web search tool calls"), ("", ""),
    ],
)  # fmt: skip
def test_a_line_of_costs_is_of_the_model_that_usage_names(line_item, model):
    assert openai_pages.model_of(line_item, {"gpt-4o", "gpt-4o-mini"}) == model


async def test_openai_keys_are_known_by_their_last_characters(house_on):
    house = house_on
    await house.add(record(1), record(2, upstream="openai-eu"), record(3, upstream="gone"))
    billed = [Billed(DAY, "gpt-4o-mini", key, input=100, cached=20, output=30, usd="0.000033")
              for key in ("key_a", "key_b", "key_c", "key_d")]  # fmt: skip
    hints = {"key_a": "sk-proj-ab...WXYZ", "key_b": "sk-proj-ef...EUEU", "key_c": "sk-...none"}
    async with Billing(billed, hints=hints) as billing:
        service = house.service(billing, by="upstream")
        await service.now("bill")
        _, cells = await service.cells("bill", None, None)
        sides = {cell.key: (cell.ours is not None, cell.theirs is not None) for cell in cells}
        assert sides == {
            "openai": (True, True), "openai-eu": (True, True), "key_c": (False, True), "key_d": (False, True),
            "gone": (True, False),
        }  # fmt: skip
        looked_up = [path for path, _ in billing.asked if "/projects/" in path]
        assert looked_up == [
            f"/organization/projects/proj_1/api_keys/{key}" for key in sorted(("key_a", "key_b", "key_c", "key_d"))
        ]
        await service.now("bill")
        assert len([path for path, _ in billing.asked if "/projects/" in path]) == 4, "once"
        named = house.service(billing, by="upstream", names={"key_d": "gone", "key_c": "openai"})
        await named.now("bill")
        _, cells = await named.cells("bill", None, None)
        assert {cell.key: cell.theirs.input_tokens for cell in cells} == {"openai": 200, "openai-eu": 100, "gone": 100}


async def test_openrouters_activity_is_of_days_and_of_a_keys_fingerprint(house):
    given = {"provider": "openrouter", "upstream": "openrouter", "request_model": "openai/gpt-4.1", "input_tokens": 100,
             "cached_input_tokens": 20}  # fmt: skip
    await house.add(record(1, **given))
    told: dict[str, Any] = {"model": "openai/gpt-4.1", "input": 100, "cached": 20, "output": 30, "usd": "0.000033"}
    mine = sha256(b"sk-or-1").hexdigest()
    billed = [Billed(DAY, key=mine, **told), Billed(DAY, key="else", **told), Billed("2026-09-01", key=mine, **told)]
    async with Billing(billed) as billing:
        whole = await house.service(billing, kind="openrouter").now("bill")
        assert {each.figure: each.coverage for each in whole.compared} == dict.fromkeys(
            ("input_tokens", "cached_input_tokens", "output_tokens", "cost_nusd"), 0.5
        )
        own = await house.service(billing, kind="openrouter", by="upstream", only_upstreams=["openrouter"]).now("bill")
        assert own.state == "agrees" and billing.asked[-1] == ("/activity", {"api_key_hash": [mine]})


async def test_what_single_generations_cost_is_seen_to_the_call(house):
    def call(number, **given):
        return record(number, provider="openrouter", upstream="openrouter", request_model="openai/gpt-4.1",
                      upstream_request_id=f"gen-{number}", **given)  # fmt: skip

    def generation(number, usd=0.000033):
        return {"id": f"gen-{number}", "model": "openai/gpt-4.1", "total_cost": usd, "native_tokens_prompt": 100,
                "native_tokens_completion": 30, "native_tokens_cached": 20}  # fmt: skip

    await house.add(*(call(n) for n in range(4)), call(4, cost_nusd=None), record(5, upstream_request_id="chatcmpl-1"))
    known = {f"gen-{n}": generation(n) for n in (0, 1, 4)} | {"gen-2": generation(2, 0.000034)}
    async with Billing([], generations=known) as billing:
        service = house.service(billing, kind="openrouter_generations", by="key")
        standing = await service.now("bill")
        figures = {each.figure: (each.ours, each.theirs) for each in standing.compared}
        assert figures["output_tokens"] == (150, 120), "one they do not know is ours only"
        assert figures["cost_nusd"] == (132_000, 133_000) and standing.unpriced_requests == 1
        assert len(billing.asked) == 5
        await house.service(billing, kind="openrouter_generations", most_generations=2).now("bill")
        assert [query["id"] for _, query in billing.asked[5:]] == [["gen-4"], ["gen-3"]], "the newest"


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("Usage Date,Deployment,Tokens In,Tokens Out,Spend\n2026-11-03,gpt4mini,100,30,$0.000033\n2026-12-01,x,1,1,1\n",
         {"day": "Usage Date", "model": "Deployment", "input_tokens": "Tokens In", "output_tokens": "Tokens Out",
          "cost_usd": "Spend"}),
        ('[{"when": "2026-11-03T05:00:00Z", "sku": "gpt4mini", "in": 100, "out": 30, "usd": 0.000033}]',
         {"day": "when", "model": "sku", "input_tokens": "in", "output_tokens": "out", "cost_usd": "usd"}),
    ],
    ids=["csv", "json"],
)  # fmt: skip
async def test_a_file_of_any_other_provider_by_its_column_names(house, tmp_path, content, columns):
    await house.add(record(1, provider="azure"), record(2))
    path = tmp_path / "bill"
    path.write_text(content)
    given = {
        "kind": "file",
        "api_key_env": "",
        "path": str(path),
        "provider": "azure",
        "models": {"gpt4mini": "gpt-4o-mini"},
    }
    service = house.service(None, columns=columns, **given)
    standing = await service.now("bill")
    assert {each.figure: each.ratio for each in standing.compared} == {
        "input_tokens": 0.0, "output_tokens": 0.0, "cost_nusd": 0.0,
    }  # fmt: skip
    path.write_text("nothing")
    with pytest.raises(PullFailed, match=r"There is no column|no list"):
        await service.now("bill")
    path.unlink()
    with pytest.raises(PullFailed, match="cannot be read"):
        await service.now("bill")


async def test_a_file_that_tells_no_models_is_compared_over_all_of_them(house, tmp_path):
    await house.add(record(1), record(2, request_model="o3"))
    (tmp_path / "bill.csv").write_text("date,input_tokens,cost_usd\n2026-11-03,200,0.000066\n")
    given = {"kind": "file", "api_key_env": "", "path": str(tmp_path / "bill.csv"), "provider": "openai"}
    assert (await house.service(None, **given).now("bill")).state == "agrees"


def test_what_a_column_may_mean_is_what_settings_take():
    from taximeter.config.reconciles import MEANINGS

    assert tuple(exports.COLUMNS) == MEANINGS


@pytest.mark.parametrize("kind", ["openai", "anthropic_admin"])
async def test_our_own_apis_reconcile_to_zero(start, kind):
    token = "the-admin-token"
    # The control port takes tokens as bearers only, and Anthropic's clients send x-api-key: loopback is the admin.
    auth = AuthSettings(admin_token_sha256=digest(token) if kind == "openai" else "")
    control = await start(Settings(auth=auth))
    rerank = {"operation": Operation.RERANK, "api": "rerank", "request_model": "rerank-3", "input_tokens": 9,
              "output_tokens": None, "cached_input_tokens": None, "search_units": 1, "cost_nusd": 7}  # fmt: skip
    await control.add(
        record(1, key_id="k1", cache_write_input_tokens=5, cost_nusd=123_456_789),
        record(2, workspace="beta", key_id="k2"),
        record(3, ended_at=record(3).ended_at + DAY_US, cost_nusd=None), embedding(4, key_id="k1"),
        record(5, provider="anthropic", request_model="claude, the model"), record(6, **rerank),
        record(1, kind="correction", cost_nusd=1, input_tokens=None, output_tokens=None),
    )  # fmt: skip
    url = f"{control.url}/v1" if kind == "openai" else control.url
    given: dict[str, Any] = {"kind": kind, "api_key_env": "ADMIN", "base_url": url, "provider": "*"}
    whose: tuple[By, ...] = ("", "key", "workspace")
    settings = Settings(reconcile=[ReconcileSettings(name=f"by-{by}", by=by, **given) for by in whose])

    async def no_pause(seconds):
        pass

    def now_us():
        return record(1).ended_at + 4 * DAY_US

    service = ReconcileService(pullers(settings, {"ADMIN": token}, no_pause), control.history, node="n1", now_us=now_us)
    for by in whose:
        standing = await service.now(f"by-{by}")
        costs = () if (kind, by) == ("anthropic_admin", "key") else ("cost_nusd",)  # it tells none by key
        assert {each.figure: (each.apart, each.not_known) for each in standing.compared} == dict.fromkeys(
            ("input_tokens", "cached_input_tokens", "cache_write_input_tokens", "output_tokens", *costs), (0, 0)
        )
        assert [each.ours for each in standing.compared if each.figure == "cost_nusd"] == [
            123_456_789 + 2 * 33_000 + 320 + 7 + 1 for _ in costs
        ]


async def test_a_credential_is_tried_with_the_smallest_question(house):
    for kind in ("openai", "anthropic", "anthropic_admin", "openrouter", "openrouter_generations"):
        async with Billing([]) as billing:
            (puller,) = house.pullers(billing, kind=kind)
            await puller.trial(SPAN)
            assert len(billing.asked) == 1
            billing.credential = "another"
            with pytest.raises(PullFailed, match=r"401 \(Incorrect API key provided.\): the credential"):
                await puller.trial(SPAN)
        with pytest.raises(PullFailed, match=r"^/\S+ of 127.0.0.1:\d+: "):  # nobody listens there any more
            await puller.trial(SPAN)


async def test_answers_without_bound_are_not_read(house, monkeypatch):
    from taximeter.reconcile import asking

    monkeypatch.setattr(asking, "ANSWER_BYTES", 1_000)
    async with Billing([], faults=deque([b" " * 2_000])) as billing:
        with pytest.raises(PullFailed, match="larger than"):
            await house.service(billing).now("bill")


@pytest.mark.parametrize(
    ("given", "scope"),
    [
        ({}, ("openai", set())),
        ({"provider": "*"}, ("", set())),
        ({"only_upstreams": ["openai"]}, ("openai", {"openai"})),
        ({"only_upstreams": ["openai", "openai-eu"]}, ("openai", set())),
        ({"only_upstreams": ["anthropic"]}, ("anthropic", set())),
        ({"only_upstreams": ["anthropic", "openai"]}, ("", {"anthropic", "openai"})),
        ({"only_upstreams": ["azure"], "provider": "openai"}, ("openai", {"azure"})),
    ],
)
def test_single_records_are_read_only_where_sums_by_provider_do_not_say_it(given, scope):
    upstreams = [*UPSTREAMS, UpstreamSettings(name="azure", provider="azure")]
    settings = ReconcileSettings(name="bill", kind="openai", api_key_env="A", **given)
    found = scope_of(settings, Settings(upstream=upstreams))
    assert (found.provider, set(found.upstreams)) == scope
