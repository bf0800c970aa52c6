"""What is shown of comparisons: API, page, command, metrics, alerts. docs/reconcile.md shows real output."""

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from billing_provider import Billed, Billing
from control_plane import DAY_US, NOON_US, ControlPlane, bearing, record
from taximeter.alerts import conditions
from taximeter.cli import main
from taximeter.config.settings import AlertSettings, AuthSettings, Settings
from taximeter.core.record import Outcome, Source
from taximeter.keys.rule import digest
from taximeter.reconcile.rule import PullFailed
from taximeter.sinks.prometheus import reconciled

DAY = "2026-11-03"
PAGE = Path(__file__).parents[2] / "docs/reconcile.md"
BLOCK = re.compile(r"```console\n\$ (?P<command>.*)\n(?P<output>(?:(?!```).*\n)*)```")
LOST = dict.fromkeys(("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_output_tokens", "total_tokens",
                      "cost_nusd")) | {"input_source": Source.NONE, "output_source": Source.NONE}  # fmt: skip


def bills():
    """198 calls of ours and 2 more, of a model that we know, and 40 of one that we never saw."""
    return [
        Billed(DAY, "gpt-4o-mini", input=20_000, cached=4_000, output=6_000, requests=200, usd="0.0066"),
        Billed(DAY, "o3", input=4_000, output=800, requests=40, usd="0.0144"),
    ]


class Comparing(ControlPlane):
    """A control plane with what it compares by, and the provider it asks."""

    reconcile: Any
    billing: Any


@pytest.fixture
async def plane(house, tmp_path):
    """A control plane that compares with a provider; `plane.compare()` does it."""
    unknown = record(500, request_model="gpt-4o", outcome=Outcome.TIMEOUT, **LOST)
    await house.add(*(record(n) for n in range(198)), unknown)
    async with Billing(bills()) as billing:
        service = house.service(billing, name="openai")
        plane = Comparing(tmp_path, house.history, reconcile=service)
        plane.reconcile, plane.billing = service, billing
        async with plane:
            yield plane


async def command(control, *args):
    env = {"COLUMNS": "120", "TAXIMETER_URL": control.url}
    return await asyncio.to_thread(CliRunner(env=env).invoke, main, ["reconcile", *args])


async def test_the_page_of_docs_shows_what_the_command_prints(plane):
    await plane.reconcile.now("openai")
    text = PAGE.read_text()
    for block in BLOCK.finditer(text):
        argv = block["command"].removeprefix("taximeter reconcile").split()
        done = await command(plane, *[each for each in argv if "echo" not in each and each not in (";", "$?")])
        assert done.exit_code in (0, 1), done.output
        if os.environ.get("TAXIMETER_WRITE_DOCS"):
            text = text.replace(block[0], f"```console\n$ {block['command']}\n{done.stdout}```")
        else:
            assert done.stdout == block["output"]
    PAGE.write_text(text)
    assert len(BLOCK.findall(text)) >= 1


async def test_the_exit_code_says_how_it_went(plane):
    assert (await command(plane, "openai")).exit_code == 4, "not compared yet"
    done = await command(plane)
    assert done.exit_code == 4 and "openai: not compared yet\n" in done.stderr
    done = await command(plane, "openai", "--now", "--json")
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    assert (found["state"], found["unknown_requests"]) == ("differs", 1)
    assert [row["model"] for row in found["rows"]] == ["gpt-4o", "gpt-4o-mini", "o3"]
    assert found["rows"][0]["ours"]["input_tokens"] is None and found["rows"][2]["ours"] is None
    for args, code in (
        (("openai", "--fail-over", "70%"), 0), (("openai", "--fail-over", "10"), 1), ((), 1), (("nobody",), 4),
        (("openai", "--fail-over", "x"), 2), (("openai", "--from", "2026-11-04", "--fail-over", "0%"), 0),
    ):  # fmt: skip
        done = await command(plane, *args)
        assert done.exit_code == code, (args, done.output)
    done = await command(plane, "openai", "--from", "2026-11-04")
    assert ": nothing to compare, 2026-11-04 until" in done.stdout and "In all" not in done.stdout
    plane.billing.faults.append((401, {}, b""))
    done = await command(plane, "openai", "--now", "--fail-over", "100%")
    assert done.exit_code == 1 and "the credential is not one that may read usage" in done.stderr
    assert "Not compared since: /organization/usage/completions answers 401" in done.stdout
    for said, expected in (["openai"], 1), ([], 1), (["--from", "2026-11-04"], 0):
        assert (await command(plane, *said, "--fail-over", "100%")).exit_code == expected, "as in cron, without --now"


async def test_models_are_summed_as_all_is_and_what_only_we_have_is_shown(plane, house):
    lost = record(501, outcome=Outcome.TIMEOUT, ended_at=NOON_US + DAY_US, **LOST)
    await house.add(lost, record(502, request_model="gpt-9", cost_nusd=None))
    plane.billing.billed = [
        Billed(DAY, "gpt-4o-mini", input=19_800, cached=3_960, output=5_940, usd="0.006534"),
        Billed("2026-11-04", "gpt-4o-mini", input=70, output=7, usd="0"),
    ]
    shown = (await command(plane, "openai", "--now")).stdout
    assert "Provider's, where nothing is known here, in no sum: input_tokens 70, output_tokens 7" in shown
    rows = [line.split() for line in shown.splitlines() if line.startswith("gpt-")]
    assert rows == [
        ["gpt-9", "input_tokens", "100", "0", "100"],
        ["gpt-9", "cached_input_tokens", "20", "0", "20"],
        ["gpt-9", "output_tokens", "30", "0", "30"],
    ]


async def test_a_file_takes_the_same_threshold(plane, tmp_path):
    (tmp_path / "bill.csv").write_text("date,model,input_tokens\n2026-11-03,gpt-4o-mini,20000\n")
    path = str(tmp_path / "bill.csv")
    assert (await command(plane, path)).exit_code == 1
    assert (await command(plane, path, "--fail-over", "1%")).exit_code == 0
    assert (await command(plane, path, "--fail-over", "0.9%")).exit_code == 1
    assert (await command(plane, path, "--now")).exit_code == 2


async def test_the_api_lists_details_and_compares(plane):
    (info,) = (await plane.get("/reconciliations"))["data"]
    assert (info["state"], info["compared_at"], info["figures"]) == (None, None, [])
    assert (await plane.client.get("/reconciliations/openai")).status_code == 404
    told = (await plane.client.post("/reconciliations/openai")).json()
    figures = {each["figure"]: each for each in told["figures"]}
    assert figures["output_tokens"] | {"difference_ratio": 0} == {
        "figure": "output_tokens", "ours": 5_940, "theirs": 6_800, "difference": -860, "difference_ratio": 0,
        "coverage_ratio": 5_940 / 6_800, "never_passed": 860, "not_known": 0,
    }  # fmt: skip
    assert figures["cost_usd"]["ours"] == 0.006534 and figures["cost_usd"]["theirs"] == 0.021
    detail = await plane.get("/reconciliations/openai", **{"from": "2026-11-03", "to": "2026-11-04"})
    assert len(detail["rows"]) == 3 and detail["from"] == "2026-11-03"
    plane.billing.faults.append((403, {}, b""))
    assert "answers 403" in (await plane.client.post("/reconciliations/openai")).json()["problem"]
    assert (await plane.client.get("/reconciliations/nobody")).status_code == 404
    assert (await plane.client.get("/reconciliations", params={"x": 1})).status_code == 400


async def test_the_page_shows_what_never_passed_here(plane):
    empty = (await plane.client.get("/dashboard/reconcile")).text
    assert "Not compared yet." in empty
    await plane.reconcile.now("openai")
    text = (await plane.client.get("/dashboard/reconcile")).text
    assert "never passed here" in text and "o3" in text and "differs" in text and "87.35 %" in text
    assert "1 call of ours in no figure" in text and "Statements" in text
    assert 'href="/dashboard/reconcile"' in (await plane.client.get("/dashboard/billing")).text
    plane.billing.faults.append((403, {}, b""))
    await plane.client.post("/reconciliations/openai")
    assert "Not compared since, after 1 try: /organization/usage/completions answers 403" in (
        await plane.client.get("/dashboard/reconcile")
    ).text.replace("&#39;", "'")
    plane.reconcile.use([])
    assert "No provider is compared with" in (await plane.client.get("/dashboard/reconcile")).text


async def test_it_is_the_admins_alone(house, tmp_path):
    settings = Settings(auth=AuthSettings(admin_token_sha256=digest("the-admin-token")))
    async with ControlPlane(tmp_path, house.history, settings) as control:
        _, key = control.keys.create("acme")
        for method, path in (("GET", "/reconciliations"), ("GET", "/reconciliations/x"), ("POST", "/reconciliations/x"),
                             ("GET", "/dashboard/reconcile")):  # fmt: skip
            assert (await control.client.request(method, path, headers=bearing(key))).status_code == 403
        admin = bearing("the-admin-token")
        assert (await control.client.get("/reconciliations", headers=admin)).json() == {"data": []}
        assert (await control.client.get("/reconciliations/x", headers=admin)).status_code == 404


async def test_metrics_and_alerts_say_so(house):
    await house.add(*(record(n) for n in range(198)))
    async with Billing(bills()) as billing:
        service = house.service(billing, name="openai")
        nothing: Any = None
        sources = conditions.Sources(
            node="n", trips=list, history=nothing, health=nothing, dead_letters=nothing,
            standings=lambda: service.standings, now_us=lambda: 0,
        )  # fmt: skip
        told_of = AlertSettings(name="ops", on=["reconcile"])
        service.standings = await service.all()
        assert await sources.of(told_of) == []
        await service.now("openai")
        told = [sample for family in reconciled.families(service.measured()) for sample in family.samples]
        samples = {(each.name, each.labels.get("figure")): each.value for each in told}
        assert samples["taximeter_reconcile_coverage_ratio", "output_tokens"] == 5_940 / 6_800
        assert samples["taximeter_reconcile_difference_ratio", "cost"] == pytest.approx(0.6889, abs=1e-3)
        assert samples["taximeter_reconcile_tolerance_ratio", None] == 0.005
        (alert,) = await sources.of(told_of)
        assert alert.subject == "openai:differs" and alert.shared
        assert alert.title == "Reconcile openai: cost differs by 68.89%"
        assert "31.11% of what they tell passed here" in alert.text
        for _ in range(conditions.STALE_ATTEMPTS):
            billing.faults.append((403, {}, b""))
            with pytest.raises(PullFailed):
                await service.now("openai")
        service.standings = await service.all()
        assert [each.subject for each in await sources.of(told_of)] == ["openai:differs", "openai:fails"]
