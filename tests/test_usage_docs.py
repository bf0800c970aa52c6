"""docs/usage.md is true: every command on it is run, and what it prints is what the page shows; none is missing.

To write the page's outputs anew after a change: TAXIMETER_WRITE_DOCS=1 pytest tests/test_usage_docs.py
"""

import asyncio
import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx2
import msgspec
import pytest
from click.testing import CliRunner

from control_plane import DAY_US, NOON_US, control, embedding, record, start
from nodes import node
from taximeter.alerts.book import Book, encoded
from taximeter.alerts.rule import Plan, State, Told, letters
from taximeter.alerts.service import AlertService
from taximeter.breaker.rule import Place, Trip, trip_id
from taximeter.breaker.service import BreakerService
from taximeter.breaker.store import TripStore
from taximeter.budgets.reservations import Reservations
from taximeter.budgets.service import BudgetService
from taximeter.budgets.store import BudgetStore
from taximeter.cli import main
from taximeter.config import JournalSettings, Settings, WebhookSettings
from taximeter.config.settings import PlanPriceSettings, PlanSettings, PriceCodeSettings, ReconcileSettings
from taximeter.control.services.corrections import Corrections
from taximeter.control.services.owed import OwedLedger
from taximeter.core.deferred import TOLD
from taximeter.core.prices import Card, Rates
from taximeter.core.record import Outcome
from taximeter.delivery import Delivery
from taximeter.delivery.aside import Letter
from taximeter.journal import Journal
from taximeter.reconcile.pulling import pullers
from taximeter.reconcile.service import ReconcileService
from taximeter.sinks.batch import Batch
from taximeter.sinks.history.write import owed
from taximeter.sinks.redis import keys as redis_keys
from taximeter.sinks.redis.counters import Counters
from taximeter.sinks.webhook.sink import Webhook
from taximeter.sinks.webhook.store import LetterResult as Answer
from waits import HANG_S, until

__all__ = ["control", "start"]

PAGE = Path(__file__).parent.parent / "docs" / "usage.md"
README = PAGE.parent.parent / "README.md"
BLOCK = re.compile(r"```console\n\$ (?P<command>.*)\n(?P<output>(?:(?!```).*\n)*)```")
SERVING = re.compile(
    r"taximeter (serve|check|status|reload|quote|alerts test)\b"
    r"|curl .*localhost:8001/(healthz|livez|readyz|metrics|prices)\b"
)
"""Commands about a node as a whole; they are run with one."""
ON_FILES = ("backup", "restore", "database")
"""Verbs that act on the data directory; here the control plane's own."""
IN_README = {"demo"}
"""Verbs whose output README.md shows (tests/demo compares it)."""
IN_EVIDENCE = {"verify", "receipt", "evidence keygen", "evidence seal", "evidence roots", "evidence keys"}
"""Verbs whose output docs/evidence.md shows (tests/evidence/test_page.py compares it)."""
CARDS = {
    ("openai", "gpt-4o-mini"): Card(ref="list", rates=Rates(input=150_000, cached_input=75_000, output=600_000)),
    ("anthropic", "claude-sonnet-4"): Card(ref="list", rates=Rates(input=3_000_000, output=15_000_000)),
    ("mistral", "mistral-small"): Card(ref="list", rates=Rates(input=100_000, output=300_000)),
}
NODE = "node-1a2b3c4d"
ALERTS = """
[[alert]]
name = "ops"
email_to = ["ops@example.org"]
[smtp]
host = "127.0.0.1"
port = 1
sender = "taximeter@example.org"
"""
"""Settings whose mail server does not answer."""
PLAN = Plan(
    name="ops", kinds=frozenset({"budget", "sink"}), email_to=("ops@example.org",), webhook=False,
    period_us=86_400_000_000,
)  # fmt: skip
CALL = b'{"model": "gpt-4o-mini", "max_tokens": 500, "messages": [{"role": "user", "content": "Who was Ada?"}]}'
"""The file that is quoted."""
KIND = "organization.usage.completions.result", "organization.usage.embeddings.result"
EXPORTED = {"start_time": 1793664000, "end_time": 1793750400, "results": [
    {"object": KIND[0], "model": "gpt-4o-mini", "input_tokens": 12970, "input_cached_tokens": 40, "output_tokens": 680},
    {"object": KIND[1], "model": "text-embedding-3-small", "input_tokens": 93},
]}  # fmt: skip
"""What a provider says of the first day: 8 output tokens more than we know of."""


def blocks() -> Iterator[re.Match[str]]:
    return BLOCK.finditer(PAGE.read_text())


def compare(outputs: dict[str, str]) -> None:
    """The page shows these outputs; or, when asked to, it does from now on."""
    assert not [command for command, output in outputs.items() if "Internal error" in output]
    if os.environ.get("TAXIMETER_WRITE_DOCS"):
        anew = {command: f"```console\n$ {command}\n{output}```" for command, output in outputs.items()}
        PAGE.write_text(BLOCK.sub(lambda match: anew.get(match["command"], match[0]), PAGE.read_text()))
        return
    assert {match["command"]: match["output"] for match in blocks() if match["command"] in outputs} == outputs


# --- a small installation: records, keys, budgets, a webhook ----------------------------------------------------------


class NewPrices:
    """A price for the model that had none; otherwise as before."""

    def cost(self, one):
        return (2_000 * one.input_tokens, "prices.toml") if one.model == "home-made" else (one.cost_nusd, "list")

    def why(self, one):
        return "model_without_price"


@pytest.fixture
async def installation(start, tmp_path, valkey_url, monkeypatch):
    # The real Valkey goes by today's date, after which sums of the page's month would not be kept.
    monkeypatch.setattr(redis_keys, "tally_expires_s", lambda *_: 1 << 33)
    numbers = count(1)

    def random(n):
        return hashlib.sha256(bytes([next(numbers)])).digest()[:n]

    def now_us():
        return NOON_US + 4 * DAY_US

    first = await start()
    ring = BudgetStore(tmp_path, now_us=now_us, random=random)
    counters = Counters(
        valkey_url, history=first.history, tallies=lambda name: ring.in_force().tallies(name), now_us=now_us
    )
    await counters.server.command("FLUSHALL")  # other tests' workspaces are called acme too
    webhook = Webhook(WebhookSettings(url="http://127.0.0.1:9/"), first.history, node=NODE, token="", secret="",
                      now_us=now_us)  # fmt: skip
    journal = Journal(tmp_path / "journal", node=NODE, worker="control", settings=JournalSettings(), now_us=now_us)
    desk = BudgetService(
        ring, Reservations(counters.server), first.history, rebuild=counters.rebuild, counted=lambda: True,
        drained=drained, now_us=now_us,
    )  # fmt: skip
    corrections = Corrections(first.history, first.waits, prices=NewPrices, journal=lambda: journal)
    prices = PriceCodeSettings(rag_embedding=0.0001, rag_llm_input=0.0015, rag_llm_output="0.002")
    embedded = PlanPriceSettings(code="rag_embedding", usd="0.0001")
    plan = PlanSettings(name="standard", workspaces=["acme"], markup_percent=20, price=[embedded])
    control = await start(
        settings=Settings(price_codes=prices, plan=[plan]),
        random=random, now_us=now_us, card=lambda *model: CARDS.get(model[:2]), budgets=desk, rebuild=counters.rebuild,
        letters=webhook, close_track=webhook.cut, deadletters=await refused(webhook, tmp_path / "journal"),
        alerts=told(tmp_path, now_us), breakers=await runaway(tmp_path, first.history, now_us),
        corrections=corrections,
        owed=OwedLedger(first.history, corrections, NewPrices(), journals=tmp_path / "journal", audit=first.audit),
        reconcile=reconciling(tmp_path, first.history, now_us),
    )  # fmt: skip
    await promised(first.history)
    upload = {"track": "upload-7", "task": "extract"}
    records = [
        record(1, document="doc-1", cost_nusd=1_454_700, input_tokens=7_850, output_tokens=462, **upload),
        embedding(2, document="doc-1", input_tokens=93, cost_nusd=1_860, **upload),
        record(3, document="doc-2", cost_nusd=894_000, input_tokens=5_120, output_tokens=210, **upload),
        record(4, task="query", provider="anthropic", request_model="claude-sonnet-4", cost_nusd=750_000,
               web_search_requests=2),
        record(5, workspace="beta", task="query", cost_nusd=None, request_model="home-made", ended_at=NOON_US + DAY_US),
        record(6, workspace="beta", task="query", outcome=Outcome.TIMEOUT, status=None, output_tokens=None,
               cost_nusd=15_000, ended_at=NOON_US + 3 * DAY_US, tags={"budgets": "bud_0a1b2c3d4e5f"},
               charged_tokens=4_112, charged_cost_nusd=2_442_600),
    ]  # fmt: skip
    await control.add(*records)
    await control.history.seal_evidence(NOON_US + 3 * DAY_US, [])
    await counters.deliver([batch_of(records, 0)])
    await webhook.deliver([batch_of(records, 0)])
    await given_up(webhook)
    yield control
    journal.shutdown()
    await webhook.close()
    await counters.close()


async def drained(sink):
    return True


def told(folder, now_us):
    """A node that told of a budget, and whose mail server does not answer."""
    at = now_us() - 60_000_000
    half = Told(
        alert="ops", kind="budget", subject="bud_1:2026-12-01:50", workspace="acme", text="", told_at=at, once=True,
        ends=False, title="50 % of the budget of workspace 'acme' is used",
    )  # fmt: skip
    down = Told(alert="ops", kind="sink", subject=f"{NODE}:redis", text="", told_at=at + 1, title="redis is down")
    waiting = letters(PLAN, down, over=False, now_us=at)[0]
    waiting.attempts, waiting.problem = 3, "ConnectionRefusedError: [Errno 111] Connection refused"
    book = Book(folder)
    book.write(encoded(State(told=[half, down], letters=[waiting])))
    nothing: Any = None
    return AlertService([], book, nothing, node=NODE, mail=None, post=None, server=None, now_us=now_us)


async def runaway(folder, history, now_us):
    """A node one of whose breakers has stopped a track."""
    trips = TripStore(folder)
    track = Place("acme", track="upload-9")
    trips.absorb([Trip(
        id=trip_id("runaway", track), breaker="runaway", workspace="acme", track="upload-9", rate=3_200_000_000,
        usual=80_000_000, limit=800_000_000, created_at=now_us() - 120_000_000, until=now_us() + 480_000_000,
    )])  # fmt: skip

    async def nothing(*_):
        pass

    return BreakerService(
        [], trips, history, server=None, node=NODE, share=nothing, tell=nothing, now_us=now_us
    )  # fmt: skip


async def promised(history):
    """A batch that goes on, and one that has ended and whose results nobody has fetched; both in no figure here."""
    later = {"input_tokens": None, "output_tokens": None, "total_tokens": None, "cost_nusd": None, "api": "other",
             "workspace": "beta", "request_model": None, "key_id": "key_b1", "track": "nightly"}  # fmt: skip
    ended = {"kind": TOLD, "line": "", "object_state": "completed", "files": ("file-out-1",)}
    records = [
        record(8, deferred="batch_2", ended_at=NOON_US, **later),
        record(9, deferred="batch_3", ended_at=NOON_US + DAY_US, **later),
        record(10, deferred="batch_2", **later, **ended),
    ]

    def take(database):
        with database.writing() as connection:
            owed.take(connection, records, NODE)

    await history.write(take)


def reconciling(folder, history, now_us):
    """A node that compares with a provider's export, which somebody puts there."""
    bill = ReconcileSettings(name="openai", kind="file", path=str(folder / "usage.json"), provider="openai", at="06:00")
    return ReconcileService(pullers(Settings(reconcile=[bill]), {}), history, node=NODE, now_us=now_us)


async def refused(webhook, journal):
    """A delivery whose webhook could not take one record, once; now it can."""
    await webhook.deliver([Batch(journal_id="j2", after=0, upto=1, records=[])])
    delivery = Delivery(journal, [webhook], settings=JournalSettings(), node=NODE, now_us=lambda: NOON_US)
    odd = record(7, event_id="j2:1", workspace="beta")
    problem = "HistoryRefused: PostgreSQL: untranslatable character"
    delivery.aside.put(Letter(sink="webhook", problem=problem, set_aside_at=NOON_US, record=odd))
    return delivery


def batch_of(records, after):
    return Batch(journal_id="j1", after=after, upto=after + len(records), records=records)


async def given_up(webhook):
    """The upload's letter, after the billing backend has refused it for hours."""
    await webhook.cut("acme", "upload-7")
    (letter,) = await webhook._do(lambda books: books.claim(NOON_US + 4 * DAY_US, 1, 8))
    await webhook._do(lambda books: books.finish([Answer(key=letter.key, problem="answered 500", dead=True)]))


def allocation():
    """What OpenCost says of the day on which the model without a price was called."""
    window = {"start": "2026-11-04T00:00:00Z", "end": "2026-11-05T00:00:00Z"}
    return {"code": 200, "data": [{"llm-prod": {"name": "llm-prod", "window": window, "totalCost": 40.25}}]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory of whoever types the commands, with the files they name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "usage.json").write_bytes(msgspec.json.encode({"object": "page", "data": [EXPORTED]}))
    (tmp_path / "allocation.json").write_bytes(msgspec.json.encode(allocation()))
    lost = tmp_path / "mnt/lost-node/data/journal"
    Journal(lost, node="lost", worker="1", settings=JournalSettings(), now_us=lambda: NOON_US).shutdown()
    return tmp_path


async def printed(control, command, folder):
    """What a command of the page prints, without the blanks that pad tables."""
    command, _, pipe = command.partition(" | ")
    name, *args = shlex.split(command)
    if name == "curl":
        text = await fetched(control, *asked(args))
    else:
        url = [] if args[0] in (*ON_FILES, "adopt", "completion") else ["--url", control.url]
        args = [f"{folder}{arg}" if arg.startswith("/mnt/") else arg for arg in args]
        env = {"COLUMNS": "120", "TZ": "UTC", "LOGNAME": "alice"}
        env |= {"TAXIMETER_DATA_DIR": "."} if args[0] in ON_FILES else {}
        result = await asyncio.to_thread(CliRunner(env=env).invoke, main, [*args, *url])
        text = result.output.replace(f"{folder}/mnt/", "/mnt/").encode()
    return shown(text, pipe)


def shown(text, pipe):
    if pipe:
        text = subprocess.run(pipe, shell=True, input=text, capture_output=True, check=True).stdout
    return "".join(f"{line.rstrip()}\n" for line in text.decode().splitlines())


def asked(args):
    """method, path, body of a curl command."""
    method, body, url = "GET", None, ""
    rest = iter(args)
    for arg in rest:
        if arg == "-X":
            method = next(rest)
        elif arg == "--json":
            method, body = "POST", next(rest)
        elif not arg.startswith("-"):
            url = arg
    return method, url.removeprefix("localhost:8001"), body


async def fetched(control, method, path, body):
    if path.startswith("/usage/live"):
        return await watched(control, path)
    answer = await control.client.request(
        method, path, content=body, headers={"content-type": "application/json"} if body else {}
    )
    return indented(answer)


def indented(answer):
    kind = answer.headers["content-type"]
    return msgspec.json.format(answer.content, indent=2) if kind.startswith("application/json") else answer.content


async def watched(control, path):
    """The live stream until a call has ended."""
    told = []
    async with control.client.stream("GET", path) as answer:
        async for line in answer.aiter_lines():
            told.append(line)
            if len(told) == 1:  # it watches now
                ended = record(7, track="upload-8", task="extract", ended_at=NOON_US + 4 * DAY_US, event_id="j1:7")
                await control.live.deliver([batch_of([ended], 6)])
            if line.startswith("data:"):
                break
    return "\n".join(told).encode()


async def test_every_command_prints_what_the_page_shows(installation, folder):
    commands = [match["command"] for match in blocks() if not SERVING.match(match["command"])]
    assert len(set(commands)) == len(commands)
    compare({command: await printed(installation, command, folder) for command in commands})


@pytest.mark.xdist_group("processes")
def test_every_command_about_a_node_prints_what_the_page_shows(tmp_path):
    commands = [match["command"] for match in blocks() if SERVING.match(match["command"])]
    outputs = {}
    (tmp_path / "call.json").write_bytes(CALL)
    (tmp_path / "alerts.toml").write_text(ALERTS)
    with node(tmp_path, TAXIMETER_NODE=NODE) as running:
        if "taximeter check" in {command.partition(" | ")[0] for command in commands}:
            (check,) = (command for command in commands if command.startswith("taximeter check"))
            done = running.run("check", TAXIMETER_LISTEN="127.0.0.1:0")
            assert done.returncode == 0, done.stdout
            outputs[check] = shown(done.stdout.encode(), check.partition(" | ")[2])
        runtime = running.start()
        with httpx2.Client(base_url=f"http://{runtime.admin_listen}", timeout=HANG_S) as client:

            def answered() -> bool:
                return set(client.get("/healthz").json()["sinks"].values()) == {0}

            until(answered, "every sink to answer")
            for command in sorted(set(commands) - outputs.keys(), key=lambda each: each.startswith("taximeter reload")):
                first, _, pipe = command.partition(" | ")
                if first.startswith("curl"):
                    text = indented(client.get(asked(shlex.split(first)[1:])[1]))
                elif first == "taximeter serve":
                    text = running.log.encode()
                else:
                    text = running.run(*shlex.split(first)[1:]).stdout.encode()
                outputs[command] = shown(text, pipe)
    compare({command: usual(output, runtime, running) for command, output in outputs.items()})


def usual(output, runtime, running):
    """With the ports, paths and numbers of an installation that has them to itself."""
    output = output.replace(runtime.listen, "127.0.0.1:8000").replace(runtime.admin_listen, "127.0.0.1:8001")
    output = output.replace("127.0.0.1:0", "127.0.0.1:8000", 1).replace("127.0.0.1:0", "127.0.0.1:8001", 1)
    output = output.replace(f"process {runtime.pid}", "process 4711").replace(
        str(running.data_dir), "/srv/taximeter/data"
    )
    output = output.replace(str(running.directory), "/srv/taximeter")
    output = re.sub(r"(?m)^.* supervisor: valkey: .*\n", "", output)  # what it says of this machine's kernel
    output = re.sub(r"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.\d{3}Z ", "2026-11-03T12:00:00.000Z ", output)
    output = re.sub(r"for new calls \(\d+\.\d s\)", "for new calls (1.0 s)", output)
    return re.sub(r"(redis://\S*@?127\.0\.0\.1:)\d+", r"\g<1>40213", output)


# --- nothing is missing -----------------------------------------------------------------------------------------------


def verbs(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command that does something: `stats`, `keys create`."""
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from verbs(command, (*path, name))
            else:
                yield " ".join((*path, name))


def test_every_verb_is_on_the_page_with_its_output():
    run = [" ".join(shlex.split(match["command"].partition(" | ")[0])[1:]) for match in blocks() if match["output"]]
    missing = [verb for verb in verbs(main) if not any(f"{each} ".startswith(f"{verb} ") for each in run)]
    assert set(missing) == IN_README | IN_EVIDENCE
    assert all(f"make {verb}" in README.read_text() for verb in IN_README)


@pytest.mark.parametrize(("page", "start"), [("operations.md", "## The command"), ("design.md", "| command |")])
def test_a_list_of_verbs_has_them_all(page, start):
    listed = PAGE.with_name(page).read_text().partition(start)[2].partition("\n#")[0].partition("\n| data port")[0]
    named = {word for code in re.findall(r"`([^`]+)`", listed) for word in code.split()}
    assert {verb.split()[0] for verb in verbs(main)} <= named


async def test_every_path_of_the_schema_is_on_the_page_with_its_output(control):
    """Pages for people are in the table of pages, all else in a command with its answer."""
    commands = [shlex.split(match["command"].partition(" | ")[0]) for match in blocks() if match["output"]]
    run = [
        (method, urlsplit(path).path) for name, *args in commands if name == "curl" for method, path, _ in [asked(args)]
    ]
    table = re.findall(r"`(/\S*)`", PAGE.read_text().partition("| page | shows |")[2].partition("\n\n")[0])
    for path, methods in (await control.get("/schema"))["paths"].items():
        like = re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
        for method, told in methods.items():
            if any("text/html" in answer.get("content", {}) for answer in told["responses"].values()):
                assert path in table, path
            else:
                assert any(each == method.upper() and like.fullmatch(at) for each, at in run), f"{method} {path}"
