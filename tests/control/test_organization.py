"""The contract test: OpenAI's official SDK reads its organization API from the control port."""

from typing import Any, cast

import pytest
from openai import AsyncOpenAI, BadRequestError

from control_plane import DAY_US, HOUR_US, NOON_US, embedding, record
from taximeter.core.record import Operation

NOON_S = NOON_US // 1_000_000
MIDNIGHT_S = NOON_S - 12 * 3_600
DAY_S = 86_400


@pytest.fixture
async def usage(control):
    async with AsyncOpenAI(base_url=f"{control.url}/v1", api_key="unused", admin_api_key="local") as client:
        yield client.admin.organization.usage


async def test_completions_in_the_sdks_own_types(control, usage):
    await control.add(
        record(1, audio_input_tokens=5, image_input_tokens=6, audio_output_tokens=7, cache_write_input_tokens=30),
        record(2, workspace="beta"),
        embedding(3),
    )
    page = await usage.completions(start_time=MIDNIGHT_S, end_time=MIDNIGHT_S + DAY_S)
    (bucket,) = page.data
    assert (page.object, page.has_more, page.next_page) == ("page", False, None)
    assert (bucket.object, bucket.start_time, bucket.end_time) == ("bucket", MIDNIGHT_S, MIDNIGHT_S + DAY_S)
    (result,) = bucket.results
    assert result.model_dump(exclude_none=True) == {
        "object": "organization.usage.completions.result", "input_tokens": 200, "input_cached_tokens": 40,
        "input_cache_write_tokens": 30, "input_uncached_tokens": 130, "input_audio_tokens": 5, "input_image_tokens": 6,
        "output_tokens": 60, "output_audio_tokens": 7, "num_model_requests": 2,
    }  # fmt: skip


async def test_every_parameter_of_completions_is_understood(control, usage):
    mine = {"key_id": "key_1", "end_user": "u1", "service_tier": "batch"}
    await control.add(
        record(1, **mine),
        record(2, **mine | {"workspace": "beta"}),
        record(3, **mine | {"end_user": "u2"}),
        record(4, **mine | {"key_id": "key_2"}),
        record(5, **mine | {"request_model": "o1"}),
        record(6, **mine | {"service_tier": None}),
        record(7, **mine | {"ended_at": NOON_US + HOUR_US}),
    )
    page = await usage.completions(
        start_time=NOON_S, end_time=NOON_S + 3_600, bucket_width="1m", project_ids=["acme"], user_ids=["u1"],
        api_key_ids=["key_1"], models=["gpt-4o-mini"], batch=True, limit=2,
        group_by=["project_id", "user_id", "api_key_id", "model", "batch", "service_tier", "api_source"],
    )  # fmt: skip
    (result,) = page.data[0].results
    assert result.model_dump(exclude_none=True) == {
        "object": "organization.usage.completions.result", "input_tokens": 100, "input_cached_tokens": 20,
        "input_cache_write_tokens": 0, "input_uncached_tokens": 80, "input_audio_tokens": 0, "input_image_tokens": 0,
        "output_tokens": 30, "output_audio_tokens": 0, "num_model_requests": 1, "project_id": "acme", "user_id": "u1",
        "api_key_id": "key_1", "model": "gpt-4o-mini", "batch": True, "service_tier": "batch",
        "api_source": "unlabeled",
    }  # fmt: skip
    assert [len(bucket.results) for bucket in page.data] == [1, 0] and page.has_more is True


async def test_batch_is_told_from_the_rest_and_alike_groups_are_one_result(control, usage):
    await control.add(
        record(1, service_tier="batch"), record(2, service_tier="flex"), record(3, service_tier=None), record(4)
    )
    page = await usage.completions(start_time=MIDNIGHT_S, end_time=MIDNIGHT_S + DAY_S, group_by=["batch"])
    assert {each.batch: each.num_model_requests for each in page.data[0].results} == {True: 1, False: 3}
    page = await usage.completions(start_time=MIDNIGHT_S, end_time=MIDNIGHT_S + DAY_S, batch=False)
    (result,) = page.data[0].results
    assert (result.num_model_requests, result.batch) == (3, None)


@pytest.mark.parametrize(("width", "seconds"), [("1m", 60), ("1h", 3_600), ("1d", DAY_S)])
async def test_paging_to_the_end_shows_every_bucket_once_and_adds_up(control, usage, width, seconds):
    await control.add(*(record(n, ended_at=NOON_US + n * seconds * 1_000_000) for n in range(7)))
    seen: list[Any] = []
    page: Any = None
    pages = 0
    start, end = NOON_S - 2, NOON_S + 10 * seconds + 5
    while pages == 0 or page.has_more:
        more: dict[str, Any] = {"page": page.next_page} if page else {}
        page = await usage.completions(start_time=start, end_time=end, bucket_width=width, limit=3, **more)
        seen += page.data
        pages += 1
    assert page.next_page is None and pages == 4
    assert [bucket.start_time for bucket in seen[1:]] == [bucket.end_time for bucket in seen[:-1]]
    assert (seen[0].start_time, seen[-1].end_time) == (start, end)
    assert sum(each.num_model_requests for bucket in seen for each in bucket.results) == 7


async def test_embeddings_and_costs(control, usage):
    await control.add(
        record(1), embedding(2), embedding(3, workspace="beta", cost_nusd=None, ended_at=NOON_US + DAY_US)
    )
    page = await usage.embeddings(start_time=MIDNIGHT_S, end_time=MIDNIGHT_S + DAY_S, group_by=["project_id", "model"])
    (result,) = page.data[0].results
    assert result.model_dump(exclude_none=True) == {
        "object": "organization.usage.embeddings.result", "input_tokens": 16, "num_model_requests": 1,
        "project_id": "acme", "model": "text-embedding-3-small",
    }  # fmt: skip
    page = await usage.costs(start_time=MIDNIGHT_S, end_time=MIDNIGHT_S + 2 * DAY_S)
    first, second = page.data
    assert first.results[0].amount.model_dump() == {"value": 0.00003332, "currency": "usd"}
    assert second.results[0].amount is None  # nothing of that day has a price
    page = await usage.costs(
        start_time=MIDNIGHT_S, end_time=MIDNIGHT_S + DAY_S, bucket_width="1d", project_ids=["acme"], limit=1,
        group_by=["project_id", "line_item", "api_key_id"], line_items=["gpt-4o-mini"],
    )  # fmt: skip
    (result,) = page.data[0].results
    assert result.model_dump(exclude_none=True) == {
        "object": "organization.costs.result", "amount": {"value": 0.000033, "currency": "usd"}, "project_id": "acme",
        "line_item": "gpt-4o-mini", "quantity": 130.0, "quantity_unit": "tokens",
    }  # fmt: skip


async def test_what_is_not_metered_is_an_empty_bucket_and_never_a_zero(control, usage):
    await control.add(record(1, operation=Operation.OTHER, api="images"))
    for ask in (
        usage.moderations, usage.images, usage.audio_speeches, usage.audio_transcriptions, usage.vector_stores,
        usage.code_interpreter_sessions, usage.file_search_calls, usage.web_search_calls, usage.decisions,
    ):  # fmt: skip
        page = await ask(start_time=MIDNIGHT_S, end_time=MIDNIGHT_S + DAY_S, group_by=["project_id"])
        assert [(bucket.start_time, bucket.results) for bucket in page.data] == [(MIDNIGHT_S, [])]


async def test_rerank_and_our_own_groupings_are_extensions(control):
    await control.add(record(1, operation=Operation.RERANK, search_units=3, input_tokens=None, track="t"))
    shown = await control.get(
        "/v1/organization/usage/rerank", start_time=MIDNIGHT_S, end_time=MIDNIGHT_S + DAY_S, group_by="track,task"
    )
    assert shown["data"][0]["results"] == [
        {"object": "organization.usage.rerank.result", "input_tokens": 0, "search_units": 3, "num_model_requests": 1,
         "project_id": None, "user_id": None, "api_key_id": None, "model": None, "track": "t", "task": None}
    ]  # fmt: skip


BAD_PARAMETERS = (
    ({"bucket_width": "2d"}, "bucket_width"), ({"limit": 32}, "limit"), ({"limit": 0}, "limit"),
    ({"bucket_width": "1h", "limit": 169}, "limit"), ({"end_time": MIDNIGHT_S}, "end_time"),
    ({"page": "bogus"}, "page"), ({"page": "page_OTk"}, "page"), ({"group_by": ["colour"]}, "group_by"),
    ({"extra_query": {"wat": 1}}, "wat"), ({"start_time": -1}, "start_time"), ({"end_time": 10**12}, "end_time"),
)  # fmt: skip


async def test_a_bad_parameter_raises_the_sdks_own_error_naming_it(usage):
    for given, param in BAD_PARAMETERS:
        with pytest.raises(BadRequestError) as refused:
            await usage.completions(**{"start_time": MIDNIGHT_S, "end_time": MIDNIGHT_S + DAY_S} | given)
        assert cast(Any, refused.value.body)["param"] == param, given


async def test_a_filter_that_does_not_apply_is_refused_instead_of_ignored(control):
    for path, status in {
        "embeddings?batch=true": 400,
        "completions?sizes=256x256": 400,
        "nothing?limit=1": 404,
    }.items():
        answer = await control.client.get(f"/v1/organization/usage/{path}&start_time={MIDNIGHT_S}")
        assert answer.status_code == status, path
