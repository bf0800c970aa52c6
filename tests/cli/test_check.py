"""`taximeter check`: what it tries, and that each finding says where and what to do."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import ssl
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import convert
from redis.asyncio import Redis

from bucket import Bucket
from http2_provider import Http2Provider
from postgres import Postgres
from taximeter.budgets.rule import Budget
from taximeter.budgets.store import BudgetStore
from taximeter.cli.check_sinks import history_troubles, redis_troubles, split_troubles
from taximeter.cli.check_upstreams import known_providers, provider_trouble, upstream_troubles
from taximeter.cli.findings import Trouble
from taximeter.config import HistorySettings, RedisSettings, Settings, UpstreamSettings
from upstream import Provider, response
from upstream import _Connection as Served

Check = Callable[..., dict[str, Any]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """`taximeter check --json` with settings, its answer and exit code."""

    def run(toml: str, *options: str, **environ: str) -> dict[str, Any]:
        file = tmp_path / "taximeter.toml"
        file.write_text(f'listen = "127.0.0.1:0"\nadmin_listen = "127.0.0.1:0"\ndata_dir = "{tmp_path}/data"\n{toml}')
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TAXIMETER_")}
        argv = [sys.executable, "-m", "taximeter", "check", "--config", str(file), "--json", *options]
        source = str(Path(__file__).parents[2] / "proxy")
        done = subprocess.run(
            argv, env=inherited | {"PYTHONPATH": source} | environ, capture_output=True, text=True, check=False
        )
        assert done.stdout, done.stderr
        return {"code": done.returncode, "file": str(file), **json.loads(done.stdout)}

    return run


async def asked(upstream: UpstreamSettings, **environ: str) -> list[Trouble]:
    return await asyncio.to_thread(lambda: list(upstream_troubles(upstream, environ)))


def listing(*models: str) -> bytes:
    return response(json.dumps({"data": [{"id": name} for name in models]}).encode())


async def test_a_finding_says_where_its_setting_stands_and_what_to_do(check: Check, provider: Provider) -> None:
    provider.script(response(b"{}", 401))
    toml = (
        f'[[upstream]]\nname = "openai"\nprovider = "opennai"\nbase_url = "{provider.base_url}"\napi_key_env = "KEY"\n'
    )
    told = await asyncio.to_thread(check, toml, "--connect", KEY="sk-wrong")
    assert (told["code"], told["ok"]) == (1, False)
    found = {each["setting"]: each for each in told["findings"] if each["level"] != "ok"}
    assert found.keys() == {"upstream[0].provider", "upstream[0].api_key_env"}
    assert found["upstream[0].provider"]["level"] == "warning"
    assert "did you mean 'openai'?" in found["upstream[0].provider"]["do"]
    refused = found["upstream[0].api_key_env"]
    assert refused["where"] == told["file"] and "refuses the credential in KEY (401)" in refused["problem"]
    assert "sk-wrong" not in json.dumps(told)
    assert provider.requests[0].header("authorization") == "Bearer sk-wrong"


async def test_what_is_tried_on_this_machine_says_what_to_do_too(
    check: Check, tmp_path: Path, free_address: str
) -> None:
    (tmp_path / "data").write_text("no directory")
    (tmp_path / "prices.toml").write_text("[[price]]\ninput = 1\n")
    settings = f'prices_file = "{tmp_path}/prices.toml"\n[smtp]\nhost = "127.0.0.1"\nport = {free_address[10:]}\n'
    told = await asyncio.to_thread(
        check, settings + 'security = "none"\nsender = "a@example.org"\n', TAXIMETER_LISTEN=free_address
    )
    failed = {each["setting"]: each["do"] for each in told["findings"] if each["level"] == "failed"}
    assert failed.keys() == {"data_dir", "listen", "prices_file", "smtp.host"} and all(failed.values())


async def test_without_connect_no_upstream_is_asked(check: Check, provider: Provider) -> None:
    told = await asyncio.to_thread(check, f'[[upstream]]\nname = "a"\nbase_url = "{provider.base_url}"\n')
    assert (told["code"], provider.requests) == (0, [])
    assert any(line.startswith("read from ") for line in told["settings_from"]) and "workers = 1" in told["settings"]


@pytest.mark.parametrize(
    ("answer", "level", "said"),
    [
        (listing("gpt-4o", "gpt-4o-mini"), None, ""),
        (listing("llama3"), "warning", "none of the 1 models that it lists matches"),
        (response(b"<html>"), "warning", "is no JSON"),
        (response(b"", 301, [("location", "https://elsewhere/")]), "warning", "it redirects (301 to https://elsewhere/)"),
        (response(b"", 404), "ok", "its credential could not be tried"),
        (response(b"", 503), "warning", "it answers 503"),
        (response(b"", 403), "failed", "refuses the credential in KEY (403)"),
    ],
)  # fmt: skip
async def test_what_an_upstream_answers(provider: Provider, answer: bytes, level: str | None, said: str) -> None:
    provider.script(answer)
    upstream = UpstreamSettings(base_url=provider.base_url, api_key_env="KEY", models=["gpt-*"])
    troubles = await asked(upstream, KEY="sk-1")
    assert [(each.level, said in str(each)) for each in troubles] == ([(level, True)] if level else [])


async def test_without_a_key_of_ours_being_asked_for_one_is_well(provider: Provider) -> None:
    provider.script(response(b"", 401))
    assert await asked(UpstreamSettings(base_url=provider.base_url, forward_credentials=True)) == []
    assert provider.requests[0].header("authorization") is None


async def test_an_upstream_that_cannot_be_reached() -> None:
    for url, said in (("http://127.0.0.1:1/v1", "refused"), ("http://no.such.host.invalid/v1", "")):
        (trouble,) = await asked(UpstreamSettings(base_url=url))
        assert trouble.level == "failed" and said in str(trouble) and "host and port" in trouble.do


async def test_an_upstream_whose_certificate_nobody_we_trust_signed(certificate: ssl.SSLContext) -> None:
    async with Provider(ssl=certificate) as provider:
        (trouble,) = await asked(UpstreamSettings(base_url=provider.base_url))
    assert trouble.setting == "ca_file" and "ca_file" in trouble.do


def test_provider_names() -> None:
    known = known_providers(Settings())

    def said(name: str) -> tuple[str, str] | None:
        trouble = provider_trouble(UpstreamSettings(provider=name), known)
        return None if trouble is None else (trouble.level, trouble.do)

    assert [said(name) for name in ("openai", "anthropic", "bedrock", "vertex", "x-ai")] == [None] * 5
    for wrong, right in (("antropic", "anthropic"), ("opneai", "openai"), ("mistrall", "mistral")):
        told = said(wrong)
        assert told is not None and told[0] == "warning" and repr(right) in told[1]
    assert said("my-gpu-farm") == ("ok", "price its models in prices.toml, if they have a price")


def troubles_of_redis(url: str, data_dir: Path) -> list[Trouble]:
    return list(redis_troubles(Settings(redis=RedisSettings(url=url), data_dir=str(data_dir))))


async def test_a_redis_that_is_well_and_one_that_may_not_run_scripts(
    redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    assert await asyncio.to_thread(troubles_of_redis, valkey_url, tmp_path) == []
    await redis.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "~tm:*", "+@all", "-@scripting")
    try:
        weak = valkey_url.replace("redis://:", "redis://weak:pw@x:").split("@")
        url = f"redis://weak:pw@{weak[-1]}"
        (trouble,) = await asyncio.to_thread(troubles_of_redis, url, tmp_path)
    finally:
        await redis.execute_command("ACL", "DELUSER", "weak")
    assert "runs no scripts" in str(trouble) and "loadmodule" in trouble.do


async def test_a_redis_without_persistence_matters_with_hard_budgets(
    redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    await redis.config_set("appendonly", "no")
    try:
        assert await asyncio.to_thread(troubles_of_redis, valkey_url, tmp_path) == []
        budget = Budget(id="b", workspace="acme", limit=10, created_at=1)
        BudgetStore(tmp_path).absorb([budget])
        (trouble,) = await asyncio.to_thread(troubles_of_redis, valkey_url, tmp_path)
    finally:
        await redis.config_set("appendonly", "yes")
    assert (trouble.level, "appendonly yes" in trouble.do) == ("warning", True)


def test_a_split_that_does_nothing_is_told(tmp_path: Path) -> None:
    def said(**redis: object) -> list[str]:
        settings = Settings(redis=convert(redis, RedisSettings), data_dir=str(tmp_path))
        troubles = list(split_troubles(settings))
        assert all((trouble.level, trouble.setting) == ("warning", "redis.split") for trouble in troubles)
        return list(map(str, troubles))

    cluster = "redis+cluster://h:1"
    assert said(url="redis://h:1") == said(url=cluster, split={"acme": 8, "globex": 2}) == []
    (none,) = said(url="redis://h:1", split={"acme": 8})
    assert "this is none" in none
    BudgetStore(tmp_path).absorb([Budget(id="b", workspace="acme", limit=10, created_at=1)])
    (whole,) = said(url=cluster, split={"acme": 8, "globex": 2})
    assert whole.startswith("acme: counters of a workspace that has budgets stay together")
    BudgetStore(tmp_path).absorb([Budget(id="c", workspace="*", limit=10, created_at=1)])
    (whole,) = said(url=cluster, split={"acme": 8, "globex": 2})
    assert whole.startswith("acme, globex: ")


def test_rights_in_a_database(postgres_server: Postgres) -> None:
    import psycopg

    url = postgres_server.database()

    def troubles(of: str = url) -> Sequence[Trouble]:
        return list(history_troubles(Settings(history=HistorySettings(url=of))))

    assert troubles() == []
    plain = url.replace("postgresql+psycopg:", "postgresql:")
    with psycopg.connect(plain, autocommit=True) as admin:
        admin.execute("drop role if exists weak")
        admin.execute("create role weak login")
        admin.execute("create table usage_events (id int)")
        admin.execute("revoke create on schema public from public")
        weak = psycopg.conninfo.conninfo_to_dict(plain) | {"user": "weak"}
        host = weak.get("host", "")
        found = troubles(f"postgresql://weak@/{weak['dbname']}?host={host}&port={weak.get('port', 5432)}")
        assert ["may not create tables" in str(found[0]), "lacks SELECT, INSERT" in str(found[1])] == [True, True]
        assert "GRANT CREATE" in found[0].do
        admin.execute("alter role weak set default_transaction_read_only = on")
        (trouble,) = troubles(f"postgresql://weak@/{weak['dbname']}?host={host}&port={weak.get('port', 5432)}")
        assert "it only lets us read" in str(trouble)
        admin.execute("drop role weak")


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A server's, signed by nobody but itself."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-keyout", key, "-out", cert, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def test_a_base_url_that_is_a_calls_is_told(check: Check) -> None:
    told = check('[[upstream]]\nname = "a"\nbase_url = "https://a.example/v1/chat/completions"\n')
    (found,) = [each for each in told["findings"] if each["setting"] == "upstream[0].base_url"]
    assert found["level"] == "warning" and found["do"] == 'base_url = "https://a.example/v1"'


def test_more_websockets_than_a_process_may_have_sockets_is_a_warning(check: Check) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        pytest.skip("as many as come")
    told = check(f"[limits]\nwebsocket_sessions = {hard}")
    (found,) = [each for each in told["findings"] if each["setting"] == "limits.websocket_sessions"]
    assert (told["code"], found["level"]) == (0, "warning") and f"need {2 * hard} sockets" in found["problem"]


def test_a_certificate_that_is_not_looked_at_is_a_warning(check: Check) -> None:
    told = check('[[upstream]]\nname = "a"\nbase_url = "https://a.example/v1"\ntls_verify = false\n')
    (found,) = [each for each in told["findings"] if each["setting"] == "upstream[0].tls_verify"]
    assert (told["code"], found["level"], found["where"]) == (0, "warning", told["file"])
    assert "its certificate is not looked at" in found["problem"] and "ca_file" in found["do"]


async def test_an_upstream_on_a_unix_socket_is_asked_there(provider: Provider, tmp_path: Path) -> None:
    path = str(tmp_path / "u.sock")
    server = await asyncio.get_running_loop().create_unix_server(lambda: Served(provider), path)
    provider.script(listing("m"))
    assert await asked(UpstreamSettings(base_url=f"unix:{path}:/v1")) == []
    assert provider.requests[0].target == "/v1/models"
    server.close()


async def test_an_upstream_that_speaks_only_http2_is_asked_in_it() -> None:
    async with Http2Provider() as provider:
        assert await asked(UpstreamSettings(base_url=provider.base_url, http2=True)) == []
        assert provider.calls[0].value(b":path") == b"/v1/models"


@pytest.mark.parametrize(
    ("path", "level", "said"),
    [
        ("none/history.db", "failed", "there is no directory"),
        ("taximeter.toml", "failed", "file is not a database"),
        ("history.db", "ok", ""),
    ],
)
def test_a_sqlite_history_that_no_record_would_reach(
    check: Check, tmp_path: Path, path: str, level: str, said: str
) -> None:
    told = check(f'[history]\nurl = "sqlite:///{tmp_path}/{path}"\n')
    (found,) = [finding for finding in told["findings"] if finding["setting"] == "history.url"]
    assert found["level"] == level and said in found["problem"]


def test_where_files_by_month_are_to_go_is_tried(check: Check, tmp_path: Path) -> None:
    """And which of OpenTelemetry's names are asked for is read."""
    (tmp_path / "file").touch()
    with Bucket() as bucket:
        toml = "".join(f'[[export]]\nto = "{to}"\n' for to in (f"{tmp_path}/file/x", "s3://finance", f"{tmp_path}/new"))
        toml += '[otel]\nendpoint = "http://127.0.0.1:9"\n'
        well = check(toml, "--connect", **bucket.environ, OTEL_SEMCONV_STABILITY_OPT_IN="http, gen_ai/dup")
        ill = check(toml, "--connect", **bucket.environ | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    told = [[e["level"] for e in each["findings"] if e["setting"].startswith("export")] for each in (well, ill)]
    assert told == [["failed", "ok", "ok"], ["failed", "failed", "ok"]]
    ((level, why),) = [(e["level"], e["problem"]) for e in well["findings"] if e["setting"] == "otel.endpoint"]
    assert level == "warning" and "'gen_ai/dup', which asks for nothing" in why
    (problem,) = [e for e in ill["findings"] if e["setting"] == "export[1].to"]
    assert "cannot be read" in problem["problem"] and "AWS_" in problem["do"]
