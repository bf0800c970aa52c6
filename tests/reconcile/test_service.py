"""Comparing with a provider: what passed here and what did not, who does it when, and what is left of it."""

import asyncio
import re
from collections import deque

import pytest
from msgspec.structs import replace

from billing_provider import Billed, Billing
from control_plane import NOON_US, embedding, record
from reconciling import DAY_US, NOW_US
from taximeter.core.errors import BadRequest, NotFound
from taximeter.core.record import Outcome, Source
from taximeter.reconcile import service as service_module
from taximeter.reconcile import shown
from taximeter.reconcile.rule import PullFailed

DAY, NEXT = "2026-11-03", "2026-11-04"


def billed(calls=1, **given):
    """What a provider bills for so many calls of `record`."""
    told = {"day": DAY, "model": "gpt-4o-mini", "input": 100 * calls, "cached": 20 * calls, "output": 30 * calls,
            "requests": calls, "usd": f"{calls * 0.000033:.6f}"}  # fmt: skip
    return Billed(**(told | given))


def told(standing, figure):
    return next(each for each in standing.compared if each.figure == figure)


async def test_one_call_in_a_hundred_that_went_past_us_is_exactly_that(house):
    await house.add(*(record(n) for n in range(99)), embedding(100))
    async with Billing([billed(100), Billed(DAY, "text-embedding-3-small", input=16, usd="0.00000032",
                                            kind="embeddings")]) as billing:  # fmt: skip
        standing = await house.service(billing).now("bill")
        assert standing.state == "differs"
        output, cost = told(standing, "output_tokens"), told(standing, "cost_nusd")
        assert (output.ours, output.theirs, output.never_passed) == (2_970, 3_000, 30)
        assert (output.ratio, output.coverage) == (0.01, 0.99)
        assert (cost.theirs - cost.ours, cost.ours) == (33_000, 99 * 33_000 + 320)
        info = shown.info(standing)
        assert (info.state, info.furthest, info.difference_ratio) == ("differs", "cached_input_tokens", 0.01)
        _, cells = await house.service(billing).cells("bill", None, None)
        assert [(cell.model, cell.ours.requests, cell.theirs.requests) for cell in cells] == [
            ("gpt-4o-mini", 99, 100),
            ("text-embedding-3-small", 1, 1),
        ]


async def test_what_agrees_within_the_tolerance_agrees(house):
    await house.add(*(record(n) for n in range(99)))
    async with Billing([billed(100)]) as billing:
        assert (await house.service(billing, tolerance_percent=1.0).now("bill")).state == "agrees"
        assert (await house.service(billing, tolerance_percent=0.99).now("bill")).state == "differs"


async def test_what_is_not_known_here_is_told_apart(house):
    # fmt: off
    lost = {"input_source": Source.NONE, "output_source": Source.NONE, "input_tokens": None, "output_tokens": None,
            "cached_input_tokens": None, "reasoning_output_tokens": None, "total_tokens": None, "cost_nusd": None}
    # fmt: on
    await house.add(
        record(1),
        record(2, outcome=Outcome.TIMEOUT, ended_at=NOON_US + DAY_US, **lost),
        record(3, cost_nusd=None),
    )  # fmt: skip
    async with Billing([billed(2), billed(1, day=NEXT)]) as billing:
        standing = await house.service(billing).now("bill")
    output = told(standing, "output_tokens")
    assert (output.ours, output.theirs, output.not_known, output.ratio) == (60, 60, 30, 0.0)
    assert (standing.unknown_requests, standing.unpriced_requests) == (1, 1)
    assert shown.info(standing).unknown_requests == 1


async def test_figures_that_settle_late_take_the_place_of_what_they_were(house):
    await house.add(*(record(n) for n in range(3)))
    async with Billing([billed(2), billed(1, model="typo")]) as billing:
        service = house.service(billing)
        assert (await service.now("bill")).state == "differs"
        billing.billed = [billed(3)]
        for _ in range(2):  # again changes nothing
            assert (await service.now("bill")).state == "agrees"
        _, cells = await service.cells("bill", None, None)
        assert [(cell.day, cell.model) for cell in cells] == [(DAY, "gpt-4o-mini")]


async def test_days_that_have_passed_stay_as_they_were_compared_last(house):
    await house.add(record(1))
    async with Billing([billed(1)]) as billing:
        service = house.service(billing)
        await service.now("bill")
        house.now_us += 30 * DAY_US
        billing.billed = []
        standing = await service.now("bill")
        assert (standing.state, standing.run.from_day) == ("nothing", "2026-11-30")
        _, cells = await service.cells("bill", DAY, NEXT)
        assert [cell.theirs.input_tokens for cell in cells] == [100]


@pytest.mark.parametrize(
    "fault",
    [
        (429, {"retry-after": "7"}, {"error": {"message": "Rate limit reached"}}),
        (503, {}, b"<html>"),
        (200, {}, b'{"object": "page", "data": [{"start_ti'),
        (200, {"cut": "1"}, b'{"object": "page", "data": []'),
    ],
    ids=["rate", "down", "half a page", "cut"],
)
async def test_what_may_go_well_the_next_time_is_asked_again(house, fault):
    await house.add(record(1))
    async with Billing([billed(1)], faults=deque([fault, fault])) as billing:
        assert (await house.service(billing).now("bill")).state == "agrees"
        waits = [seconds for seconds in billing.paused if seconds != 0.5]
        assert waits == ([7.0, 7.0] if fault[0] == 429 else [2.0, 4.0])


async def test_a_part_is_never_taken_for_the_whole(house):
    await house.add(record(1), record(2, ended_at=NOON_US + DAY_US))
    async with Billing([billed(1), billed(1, day=NEXT)], rows_a_page=2) as billing:
        service = house.service(billing)
        assert (await service.now("bill")).state == "agrees"
        pages = [query.get("page") for path, query in billing.asked if path.endswith("costs")]
        assert pages == [None, ["2"], ["4"], ["6"]]
        page = {"object": "page", "data": [], "has_more": True, "next_page": None}
        billing.faults.extend([page])
        with pytest.raises(PullFailed, match="there is more, and not where"):
            await service.now("bill")
        billing.faults.extend([page | {"next_page": "x"}, page | {"next_page": "x"}])
        with pytest.raises(PullFailed, match="there is more"):
            await service.now("bill")
        (standing,) = await service.all()
        assert standing.state == "agrees", "what was known stays known"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ((403, {}, {"error": {"message": "Missing scopes: api.usage.read"}}), "Missing scopes.*may read usage"),
        ((302, {"location": "http://elsewhere"}, b""), "redirects are not followed"),
        ({"object": "page", "data": [{"start_time": "x"}]}, "not what is documented"),
        ({"object": "page", "data": [{"start_time": 1793664000, "end_time": 1793750400, "results": [
            {"amount": {"value": 1, "currency": "eur"}}]}]}, "only USD"),
        ((400, {}, {"error": {"message": "no"}}), "answers 400"),
    ],
)  # fmt: skip
async def test_what_will_not_go_well_is_not_asked_again(house, fault, why):
    async with Billing([], faults=deque([fault])) as billing:
        with pytest.raises(PullFailed, match=why):
            await house.service(billing).now("bill")
        assert len(billing.asked) == 1


async def test_a_provider_that_stays_away_is_asked_later_and_told_of(house):
    async with Billing([], faults=deque([(500, {}, b"")] * 5)) as billing:
        service = house.service(billing)
        await service.look()
        (standing,) = service.standings
        assert "/organization/usage/completions answers 500, 5 times" in standing.run.problem
        assert (standing.run.attempts, standing.run.next_at, standing.run.done_at) == (1, NOW_US + 60_000_000, 0)
        (measured,) = service.measured()
        assert (measured.failures, measured.done_s) == (1, 0)
        await service.look()
        assert len(billing.asked) == 5, "not before its time"
        with pytest.raises(NotFound, match=r"was not compared yet: .* 5 times"):
            await service.cells("bill", None, None)
        house.now_us += 60_000_000
        await service.look()
        (standing,) = service.standings
        assert (standing.run.problem, standing.run.attempts, standing.state) == ("", 0, "nothing")


async def test_it_is_done_daily_at_its_time_and_once(house):
    async with Billing([]) as billing:
        service = house.service(billing, at="13:00")
        await service.look()
        asked = len(billing.asked)
        assert asked == 3, "yesterday's was due"
        await service.look()
        house.now_us += 3_600_000_000 - 1
        await service.look()
        assert len(billing.asked) == asked
        house.now_us += 1
        await service.look()
        assert len(billing.asked) == 2 * asked


async def test_of_several_nodes_one_does_it(house_on):
    house = house_on
    await house.add(record(1))
    async with Billing([billed(1)]) as billing:
        nodes = [house.service(billing, node=f"n{n}") for n in range(3)]
        await asyncio.gather(*(node.look() for node in nodes))
        assert len(billing.asked) == 3
        for node in nodes:
            await node.look()
        assert len(billing.asked) == 3
        assert [[each.state for each in node.standings] for node in nodes] == [["agrees"]] * 3
        assert nodes[0].measured()[0].passed == nodes[2].measured()[0].passed == {
            "input_tokens": 1.0, "cached_input_tokens": 1.0, "output_tokens": 1.0, "cost_nusd": 1.0,
        }  # fmt: skip


async def test_a_node_that_died_in_the_midst_is_followed_by_another(house):
    async with Billing([]) as billing:
        first, second = house.service(billing), house.service(billing, node="n2")
        assert await first._store.claim("bill", "n1", NOW_US, NOW_US, service_module.HELD_US, forced=False)
        await second.look()
        with pytest.raises(BadRequest, match="just now"):
            await second.now("bill")
        assert billing.asked == []
        house.now_us += service_module.HELD_US
        await second.look()
        assert second.standings[0].run.node == "n2" and second.standings[0].run.done_at


async def test_one_that_is_stopped_lets_the_next_start_do_it(house):
    async with Billing([]) as billing:
        gate = asyncio.Event()

        async def stuck(seconds):
            gate.set()
            await asyncio.Event().wait()

        billing.faults.append((500, {}, b""))
        service = house.service(billing)
        service._pullers["bill"]._pause = stuck
        looking = asyncio.create_task(service.look())
        await gate.wait()
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        await house.service(billing).look()
        assert (await house.service(billing).all())[0].state == "nothing"


async def test_other_settings_are_gone_by_at_once(house):
    async with Billing([]) as billing:
        service = house.service(billing)
        await service.look()
        service.use(house.pullers(billing, name="other"))
        assert service.standings == []
        with pytest.raises(NotFound, match="There are: other"):
            await service.now("bill")
        service.use([])
        await service.look()
        assert service.standings == [] and service.measured() == []
        with pytest.raises(NotFound, match="None is configured"):
            await service.cells("bill", None, None)


async def test_names_of_theirs_are_cut_as_ours_are(house):
    await house.add(record(1, request_model="m" * 300))
    async with Billing([billed(1, model="m" * 300), billed(1, model="a\0b")]) as billing:
        standing = await house.service(billing, models={"a\0b": "a"}).now("bill")
        assert told(standing, "input_tokens").never_passed == 100
        _, cells = await house.service(billing).cells("bill", None, None)
        assert [len(cell.model) for cell in cells] == [1, 200]
        assert replace(cells[0], ours=None) == cells[0]


def page(*results, start_s=NOON_US // 1_000_000):
    bucket = {"object": "bucket", "start_time": start_s, "end_time": start_s + 86_400, "results": list(results)}
    return {"object": "page", "data": [bucket], "has_more": False, "next_page": None}


def used(tokens):
    return {"object": "organization.usage.completions.result", "model": "gpt-4o-mini", "input_tokens": tokens}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (page(used(2**70)), r"input_tokens of gpt-4o-mini on 2026-11-03 is \d+, which cannot be"),
        (page(used(2**62 - 1), used(1)), "which cannot be"),
        (page(used(-1)), "is -1, which cannot be"),
        (page(used(1), start_s=1_793_664_000_000), "not in seconds since 1970"),
    ],
)
async def test_what_cannot_be_is_a_failure_and_not_the_end_of_comparing(house, answer, why):
    await house.add(record(1))
    async with Billing([billed(1)], faults=deque([answer])) as billing:
        service = house.service(billing)
        await service.look()
        (standing,) = service.standings
        assert re.search(why, standing.run.problem) and standing.run.held_until == 0
        house.now_us += 60_000_000
        await service.look()
        assert service.standings[0].state == "agrees"


async def test_a_fault_of_ours_is_a_failure_too(house, monkeypatch, caplog):
    await house.add(record(1))
    async with Billing([billed(1)]) as billing:
        service = house.service(billing)
        with monkeypatch.context() as patch:
            patch.setattr("taximeter.reconcile.rule.cells", lambda *_: dict[str, str]()["fault"])
            await service.look()
        assert service.standings[0].run.problem == "a fault of Taximeter's own: KeyError: 'fault'"
        assert "Traceback" in caplog.text
        house.now_us += 60_000_000
        await service.look()
        assert service.standings[0].state == "agrees"


async def test_days_that_nobody_asked_for_are_not_kept(house):
    later = page(used(5), start_s=NOW_US // 1_000_000 + 86_400)
    async with Billing([], faults=deque([later])) as billing:
        service = house.service(billing)
        await service.now("bill")
        assert (await service.cells("bill", "2026-01-01", "2027-01-01"))[1] == []


async def test_an_amount_of_which_nothing_is_told_is_none(house):
    untold = {"object": "organization.costs.result", "line_item": "gpt-4o-mini, input", "amount": {}}
    async with Billing([], faults=deque([page(used(100)), page(), page(untold)])) as billing:
        await house.add(record(1))
        standing = await house.service(billing).now("bill")
    assert [each.figure for each in standing.compared] == ["input_tokens"]


async def test_a_provider_that_lists_nothing_of_our_calls_differs(house):
    await house.add(record(1))
    async with Billing([]) as billing:
        standing = await house.service(billing).now("bill")
    assert (standing.state, told(standing, "output_tokens").ratio) == ("differs", 1.0)
