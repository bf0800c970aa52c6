"""`GET /usage/quantities` and `taximeter quantities`: images, seconds, characters and the like."""

import asyncio

from click.testing import CliRunner

from control_plane import record
from taximeter.cli import main
from taximeter.core.record import Operation


async def test_quantities_over_the_api_and_in_the_terminal(control, tmp_path):
    drawn = {"images": 2, "media_size": "1024x1024", "media_quality": "hd", "request_model": "dall-e-3"}
    await control.add(record(1, **drawn), record(2, **drawn), record(3, workspace="beta", input_characters=1_200))
    told = await control.get("/usage/quantities", group_by="model", workspace="acme")
    assert told["complete"] is True
    assert told["quantities"] == [
        {"model": "dall-e-3", "kind": "images", "variant": "1024x1024 hd", "unit": "images", "amount": 4}
    ]
    page = await control.client.get("/dashboard/records")
    assert "1,200 characters" not in page.text  # it has tokens, which are what it is billed by
    await control.add(record(4, input_tokens=None, output_tokens=None, operation=Operation.OTHER, **drawn))
    assert "2 images" in (await control.client.get("/dashboard/records")).text
    _, secret = control.keys.create("acme")
    headers = {"authorization": f"Bearer {secret}"}
    mine = (await control.client.get("/usage/quantities", headers=headers)).json()
    assert [each["kind"] for each in mine["quantities"]] == ["images"]
    assert (await control.client.get("/usage/quantities?track=t")).status_code == 400
    argv = ["quantities", "--by", "workspace", "--url", control.url]
    done = await asyncio.to_thread(CliRunner(env={"COLUMNS": "120"}).invoke, main, argv)
    rows = [line.split() for line in done.output.splitlines()]
    assert ["acme", "images", "1024x1024", "hd", "6", "images"] in rows
    assert ["beta", "input_characters", "1,200", "characters"] in rows
    none = await asyncio.to_thread(CliRunner().invoke, main, [*argv, "--workspace", "acme", "--from", "2026-12-01"])
    assert none.output == "Nothing of this kind was used in this range.\n"
    as_json = await asyncio.to_thread(CliRunner().invoke, main, [*argv, "--json"])
    assert '"amount":6' in as_json.output
