"""What models of one's own cost: from OpenCost, from GPU hours; as entries that price the same calls at just that."""

import asyncio
import http.server
import json
import threading
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from control_plane import NOON_US, embedding, record
from taximeter.cli import main
from taximeter.config import Settings
from taximeter.core.errors import ConfigError
from taximeter.pricebook import PriceBook, compile_prices
from taximeter.pricebook.listed import read_prices

DAY = {"start": "2026-11-03T00:00:00Z", "end": "2026-11-04T00:00:00Z"}
NEXT = {"start": "2026-11-04T00:00:00Z", "end": "2026-11-05T00:00:00Z"}
LOCAL = {"provider": "vllm", "request_model": "llama-3.3-70b"}
RANGE = ("--from", "2026-11-03", "--to", "2026-11-04")


def allocated(window, total, gpu=0.0, **more):
    """One allocation, with members of https://www.opencost.io/docs/integrations/api-examples that are not read."""
    return {"name": "x", "properties": {"cluster": "c"}, "window": window, "start": window["start"],
            "end": window["end"], "minutes": 1440.0, "cpuCost": 1.5, "gpuHours": 24.0, "gpuCost": gpu,
            "totalCost": total, "totalEfficiency": 0.5, **more}  # fmt: skip


ANSWER: dict[str, Any] = {
    "code": 200,
    "status": "success",
    "data": [
        {"llm-prod": allocated(DAY, 40.25, 30.0), "__idle__": allocated(DAY, 9.0)},
        None,
        {"llm-prod": allocated(NEXT, 7.75)},
    ],
}


@pytest.fixture
def opencost():
    """A scripted OpenCost: its address, and what it was asked."""
    asked: list[dict[str, list[str]]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append({"path": [urlsplit(self.path).path], **parse_qs(urlsplit(self.path).query)})
            body = json.dumps({**ANSWER, "data": ANSWER["data"][:1]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()
    thread.join()


CALLS = (
    record(1, **LOCAL, input_tokens=1_000, output_tokens=500),
    record(2, **LOCAL, input_tokens=3_000, output_tokens=1_500, ended_at=NOON_US + 1),
    record(3, workspace="beta", **LOCAL, input_tokens=100, output_tokens=10, ended_at=NOON_US + 2),
)


@pytest.fixture
async def prices(control, tmp_path):
    await control.add(*CALLS, embedding(4), record(5, provider="vllm", request_model="other"))

    async def run(*args):
        argv = ["prices", *args, "--url", control.url]
        return await asyncio.to_thread(CliRunner(env={"COLUMNS": "120"}).invoke, main, argv)

    return run


def cost_usd(file, folder):
    """What the calls cost by a price file."""
    book = PriceBook(compile_prices(Settings(prices_file=str(file)), folder / "compiled.json", {}))
    costs = [book.cost(each)[0] for each in CALLS]
    assert None not in costs
    return Decimal(sum(each or 0 for each in costs)) / 10**9


@pytest.mark.parametrize("weight", ["1", "3.5"])
async def test_what_opencost_allocated_is_what_the_calls_of_that_time_cost(prices, opencost, tmp_path, weight):
    url, asked = opencost
    file = tmp_path / "prices.toml"
    file.write_text('# mine\n[[price]]\nprovider = "a"\nmodel = "b"\nfrom = 2026-01-01\nfree = true\nsource = "s"\n')
    before = file.read_text()
    args = ["opencost", url, "--model", "vllm/llama-3.3-70b=llm-prod", *RANGE, "--write", str(file)]
    done = await prices(*args, "--output-weight", weight)
    assert done.exit_code == 0, done.output
    assert asked == [{"path": ["/allocation"], "window": ["2026-11-03T00:00:00Z,2026-11-04T00:00:00Z"],
                      "aggregate": ["namespace"], "accumulate": ["true"]}]  # fmt: skip
    assert file.read_text().startswith(before)
    assert "40.25 USD, 4,100 input and 2,010 output tokens" in file.read_text()
    assert "from = 2026-11-03" in done.stdout
    assert abs(cost_usd(file, tmp_path) - Decimal("40.25")) < Decimal("0.000001")
    assert "taximeter reprice --from 2026-11-03" in done.stderr


async def test_a_file_of_several_steps_is_added_up_over_its_own_time(prices, tmp_path):
    answer = tmp_path / "allocation.json"
    answer.write_text(json.dumps(ANSWER))
    done = await prices("opencost", str(answer), "--model", "vllm/llama-3.3-70b=llm-prod", "--since", "2026-11-05")
    assert "2026-11-03T00:00:00Z/2026-11-05T00:00:00Z: 48.00 USD" in done.stdout
    assert "from = 2026-11-05" in done.stdout
    gpu = await prices("opencost", str(answer), "--model", "vllm/llama-3.3-70b=llm-prod", "--cost", "gpu")
    assert ": 30.00 USD" in gpu.stdout


async def test_gpu_hours_are_paid_by_the_tokens_of_their_time(prices, tmp_path):
    file = tmp_path / "own.toml"
    args = ["gpu", "--model", "vllm/llama-3.3-70b", "--usd-per-hour", "2.5", "--gpus", "2", *RANGE]
    done = await prices(*args, "--write", str(file))
    assert done.exit_code == 0, done.output
    assert abs(cost_usd(file, tmp_path) - Decimal(2) * Decimal("2.5") * 24) < Decimal("0.000001")


WRONG = (
    (("opencost", "FILE", "--model", "vllm/llama-3.3-70b=llm-dev"), "There are: __idle__, llm-prod"),
    (("opencost", "FILE", "--model", "llama=llm-prod"), "is not PROVIDER/MODEL=NAME"),
    (("opencost", "FILE", "--model", "vllm/nobody=llm-prod"), "No tokens of vllm/nobody passed"),
    (("opencost", "BAD", "--model", "vllm/m=n"), "OpenCost answered 400: no window"),
    (("opencost", "HTML", "--model", "vllm/m=n"), "no answer of OpenCost's /allocation"),
    (("opencost", "/nowhere", "--model", "vllm/m=n"), "cannot be read"),
    (("opencost", "http://127.0.0.1:9", "--model", "vllm/m=n"), "Give --from and --to"),
    (("gpu", "--model", "vllm/m", "--usd-per-hour", "1"), "Give --from and --to"),
    (("gpu", "--model", "vllm/m", "--usd-per-hour", "1", "--from", "7d"), "or neither"),
    (("gpu", "--model", "vllm/m", "--usd-per-hour", "x", *RANGE), "no number above 0"),
    (("gpu", "--model", "m", "--usd-per-hour", "1", *RANGE), "is not PROVIDER/MODEL"),
    (("gpu", "--model", "vllm/m", "--usd-per-hour", "1", "--from", "today", "--to", "7d"), "is not before"),
)


async def test_what_is_wrong_is_said(prices, tmp_path):
    for name, text in (("FILE", json.dumps(ANSWER)), ("HTML", "<html>"), ("BAD", '{"code":400,"message":"no window"}')):
        (tmp_path / name).write_text(text)
    for args, says in WRONG:
        done = await prices(*(str(tmp_path / each) if each in ("FILE", "HTML", "BAD") else each for each in args))
        assert done.exit_code == 2 and says in done.output, (args, done.output)


async def test_who_does_not_answer_is_unreachable_and_a_file_that_would_not_hold_stays(prices, tmp_path):
    args = ("--model", "vllm/llama-3.3-70b=llm-prod", *RANGE)
    assert (await prices("opencost", "http://127.0.0.1:9", *args)).exit_code == 3
    file = tmp_path / "prices.toml"
    file.write_text("broken = 1\n")
    gpu = ("gpu", "--model", "vllm/llama-3.3-70b", "--usd-per-hour", "1", *RANGE, "--write", str(file))
    done = await prices(*gpu)
    assert done.exit_code == 2 and file.read_text() == "broken = 1\n"
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".prices")] == []


LOCAL_HEAD = '[[local]]\nprovider = "vLLM"\nmodel = "llama*"\nfrom = 2026-11-01\ngpu_usd_per_hour = 2.5\n'


@pytest.mark.parametrize(
    ("entry", "rates"),
    [
        ('gpus = 4\ntokens_per_hour = 20_000_000\nsource = "s"\n', {"input": 500_000, "output": 500_000}),
        ('input_tokens_per_hour = 50_000_000\noutput_tokens_per_hour = 5e6\nsource = "s"\n',
         {"input": 50_000, "output": 500_000}),
        ('input_tokens_per_hour = 50_000_000\nsource = "s"\n', {"input": 50_000}),
        ('audio_hours_per_hour = 50\nsource = "s"\n', {"audio_hour": 50_000_000_000}),
        ('images_per_hour = 1_000\nsource = "s"\n', {"image": 2_500_000_000}),
    ],
)  # fmt: skip
def test_a_gpu_hour_over_what_it_does_is_a_price(tmp_path, entry, rates):
    file = tmp_path / "prices.toml"
    file.write_text(LOCAL_HEAD + entry)
    ((declared,), _, _) = read_prices(file)
    card = declared.listed.tiers[""][0].cards[0]
    assert (declared.provider, declared.listed.model) == ("vllm", "llama*")
    assert card is not None
    assert card.ref == "local:vllm/llama*@2026-11-01"
    assert {name: rate for name in card.rates.__struct_fields__ if (rate := getattr(card.rates, name))} == rates


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('source = "s"\n', "exactly one of these"),
        ('tokens_per_hour = 1\nimages_per_hour = 1\nsource = "s"\n', "exactly one of these"),
        ('output_tokens_per_hour = 1\nsource = "s"\n', "exactly one of these"),
        ('tokens_per_hour = 0\nsource = "s"\n', "tokens_per_hour: 0 is not what is done"),
        ('tokens_per_hour = 1\ngpus = 0\nsource = "s"\n', "gpus: 0"),
        ('tokens_per_hour = 1\nsource = " "\n', "source must say"),
        ('token_per_hour = 1\nsource = "s"\n', "Allowed: provider"),
    ],
)
def test_a_local_price_that_cannot_hold_says_why(tmp_path, entry, says):
    file = tmp_path / "prices.toml"
    file.write_text(LOCAL_HEAD + entry)
    with pytest.raises(ConfigError, match=says):
        read_prices(file)
    file.write_text(LOCAL_HEAD.replace("2.5", "-1") + 'tokens_per_hour = 1\nsource = "s"\n')
    with pytest.raises(ConfigError, match="gpu_usd_per_hour"):
        read_prices(file)
