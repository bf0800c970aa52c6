"""What settings mean together: refused always, or refused for serving."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from taximeter import config
from taximeter.config import checks
from taximeter.config.addresses import is_loopback, join, masked, split
from taximeter.core.errors import ConfigError

SHA = "ab" * 32
KEY = f'[[auth.keys]]\nid = "{{}}"\nsha256 = "{SHA}"\nworkspace = "acme"\n'


def load(tmp_path: Path, toml: str) -> config.Settings:
    file = tmp_path / "t.toml"
    file.write_text(toml)
    return config.load(file, {})


@pytest.mark.parametrize(
    ("toml", "path", "why"),
    [
        ('listen = "8000"', "listen", "it must be host:port"),
        ('listen = ":8000"', "listen", "name the address to listen on"),
        ('listen = "::1:8000"', "listen", "needs brackets"),
        ('admin_listen = "localhost:99999"', "admin_listen", "port from 0 to 65535"),
        ("[limits]\nheld_bytes = 1000", "limits.held_bytes", "less than limits.json_body_bytes"),
        ('admin_listen = "127.0.0.1:8000"', "admin_listen", "the same as listen"),
        ('node = "a b"', "node", "1-128 characters"),
        ('prices_file = "nowhere.toml"', "prices_file", "no such file"),
        ("[price_codes]\nrag_embedding = -0.1", "price_codes.rag_embedding", "0 to 1,000,000, with at most 9 decimals"),
        ('[price_codes]\nrag_llm_input = "1e-10"', "price_codes.rag_llm_input", "at most 9 decimals"),
        ('[price_codes]\nrag_indexation = "nan"', "price_codes.rag_indexation", "an amount of USD"),
        ('[price_codes]\nrag_indexation = "cheap"', "price_codes.rag_indexation", "an amount of USD"),
        ("upstream = []", "upstream", "at least one [[upstream]]"),
        ('[[upstream]]\nname = "a"\n[[upstream]]\nname = "a"', "upstream[1].name", "two upstreams have this name"),
        ('[[upstream]]\nname = "a/b"', "upstream[0].name", "1-128 characters"),
        ('[[upstream]]\nworkspace = "a b"', "upstream[0].workspace", "1-128 characters"),
        ('[[upstream]]\nprovider = ""', "upstream[0].provider", "whose prices"),
        ('[[upstream]]\nbase_url = ""', "upstream[0].base_url", "http:// or https://"),
        ('[[upstream]]\nbase_url = "api.openai.com/v1"', "upstream[0].base_url", "http:// or https://"),
        ('[[upstream]]\nbase_url = "https://"', "upstream[0].base_url", "names a host"),
        ('[[upstream]]\nbase_url = "https://h:x/v1"', "upstream[0].base_url", "not a URL"),
        ('[[upstream]]\nbase_url = "https://u:p@h/v1"', "upstream[0].base_url", "credential does not belong"),
        ('[[upstream]]\nbase_url = "https://h/v1?k=1"', "upstream[0].base_url", "no ?query"),
        ('[[upstream]]\nnative_url = "h"', "upstream[0].native_url", "http:// or https://"),
        ('[[upstream]]\nproxy_url = "h:1"', "upstream[0].proxy_url", "http:// or https://"),
        ('[[upstream]]\nca_file = "nowhere.pem"', "upstream[0].ca_file", "no such file"),
        ("[[upstream]]\nmodels = []", "upstream[0].models", "model names or patterns"),
        ('[[upstream]]\napi_key_env = "sk-1"', "upstream[0].api_key_env", "not the key itself"),
        (
            '[[upstream]]\napi_key_env = "K"\nforward_credentials = true',
            "upstream[0].forward_credentials",
            "never",
        ),
        ('[auth]\nadmin_token_sha256 = "secret"', "auth.admin_token_sha256", "64 hexadecimal digits"),
        (KEY.format("a") + KEY.format("a"), "auth.keys[1].id", "two keys have this id"),
        (KEY.format("a") + KEY.format("b"), "auth.keys[1].sha256", "two entries hold the same key"),
        (KEY.format("a b"), "auth.keys[0].id", "1-128 characters"),
        (KEY.format("a").replace("acme", ""), "auth.keys[0].workspace", "1-128 characters"),
        ('[tags.headers]\nHost = "workspace"', "tags.headers.Host", "cannot be a tag header"),
        ('[tags.headers]\n"X Y" = "workspace"', "tags.headers.X Y", "cannot be a tag header"),
        ('[tags.headers]\nX-T = "tenant"', "tags.headers.X-T", "workspace, track, document, task, end_user"),
        ('[redis]\nurl = "http://h"', "redis.url", "redis+cluster://"),
        ('[redis]\nsplit = { "a|b" = 8 }', "redis.split", "is no workspace"),
        ("[redis]\nsplit = { acme = 65 }", "redis.split.acme", "a whole number, at least 2, at most 64"),
        ("[redis]\nsplit = 8", "redis.split", "a table of whole numbers"),
        ('[history]\nurl = "mysql://h"', "history.url", "sqlite:///path"),
        ('[history]\nurl = "sqlite://h"', "history.url", "sqlite:///path"),
        ('[webhook]\nurl = "h"', "webhook.url", "http:// or https://"),
        ('[webhook]\ntoken_env = "a b"', "webhook.token_env", "name of an environment variable"),
        ('[otel]\nendpoint = "collector:4318"', "otel.endpoint", "http:// or https://"),
        ('[otel]\nheaders_env = "key=1"', "otel.headers_env", "name of an environment variable"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_its_path(tmp_path: Path, toml: str, path: str, why: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, toml)
    said = str(raised.value)
    assert said.startswith(f"{tmp_path / 't.toml'}: {path}: ")
    assert why in said


@pytest.mark.parametrize("listen", ["0.0.0.0:8000", "[::]:8000", "10.0.0.5:8000", "proxy.test:8000"])
def test_an_open_relay_on_the_operators_credential_is_refused(tmp_path: Path, listen: str) -> None:
    toml = f'listen = "{listen}"\n[[upstream]]\napi_key_env = "K"\n'
    with pytest.raises(ConfigError, match=r"listen = .* spend on"):
        checks.before_serving(load(tmp_path, toml), {"K": "secret"})
    for allowed in (
        toml.replace('api_key_env = "K"', "forward_credentials = true"),
        toml + '[auth]\nmode = "keys"',
        toml + "[auth]\nallow_open_relay = true",
        toml.replace(listen, "127.0.0.1:8000"),
        toml.replace(listen, "[::1]:8000"),
        toml.replace(listen, "localhost:8000"),
    ):
        checks.before_serving(load(tmp_path, allowed), {"K": "secret"})


def test_the_control_port_leaves_loopback_only_with_an_admin_token(tmp_path: Path) -> None:
    toml = 'admin_listen = "0.0.0.0:8001"\n'
    with pytest.raises(ConfigError, match=r"admin_listen = '0\.0\.0\.0:8001' without auth\.admin_token_sha256"):
        checks.before_serving(load(tmp_path, toml), {})
    checks.before_serving(load(tmp_path, f'{toml}[auth]\nadmin_token_sha256 = "{SHA}"'), {})


def test_a_credential_that_is_not_there_is_refused_for_serving_only(tmp_path: Path) -> None:
    settings = load(tmp_path, '[[upstream]]\napi_key_env = "K"\n')
    with pytest.raises(ConfigError, match=r"upstream\[0\]\.api_key_env: the environment variable K is not set"):
        checks.before_serving(settings, {"K": ""})
    settings = load(tmp_path, '[webhook]\nurl = "https://h.test"\ntoken_env = "T"\n')
    with pytest.raises(ConfigError, match=r"webhook\.token_env: the environment variable T is not set"):
        checks.before_serving(settings, {})


@pytest.mark.parametrize("value", ["sk-a\nx-evil: 1", "sk-a\x01", "sk-\u00e9"])
def test_a_credential_that_no_header_can_hold_is_refused_before_a_worker_is(tmp_path: Path, value: str) -> None:
    for toml, path in (
        ('[[upstream]]\napi_key_env = "K"\n', r"upstream\[0\]\.api_key_env"),
        ('[webhook]\nurl = "https://h.test"\ntoken_env = "K"\n', r"webhook\.token_env"),
    ):
        with pytest.raises(ConfigError, match=f"{path}: what the environment variable K holds .* no header") as told:
            checks.before_serving(load(tmp_path, toml), {"K": value})
        assert "sk-" not in str(told.value)
        checks.before_serving(load(tmp_path, toml), {"K": " sk-good\n"})


@pytest.mark.parametrize("origin", ["*", "null", "https://*"])
def test_pages_of_any_site_may_not_spend_the_operators_credential(tmp_path: Path, origin: str) -> None:
    cors = f'[cors]\nallowed_origins = ["{origin}"]\n'
    upstream = '[[upstream]]\napi_key_env = "K"\n'
    with pytest.raises(ConfigError, match=r"cors\.allowed_origins .* any page on the web"):
        checks.before_serving(load(tmp_path, cors + upstream), {"K": "k"})
    for safe in (
        cors,
        f'{cors}{upstream}[auth]\nmode = "keys"\n',
        f"{cors}{upstream}[auth]\nallow_open_relay = true\n",
        f'[cors]\nallowed_origins = ["https://ui.test", "file://"]\n{upstream}',
    ):
        checks.before_serving(load(tmp_path, safe), {"K": "k"})


def test_an_origin_with_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cors\.allowed_origins\[1\]: 'https://ui\.test/' is not allowed; .* last /"):
        load(tmp_path, '[cors]\nallowed_origins = ["null", "https://ui.test/"]\n')


HOST = socket.gethostname()


@pytest.mark.parametrize(
    ("listen", "url"),
    [("127.0.0.1:8000", "http://127.0.0.1:8000/v1"), ("127.0.0.1:8000", "http://localhost:8000"),
     ("127.0.0.1:8000", "http://LOCALHOST.:8000/w/acme/v1"), ("localhost:8000", "http://127.0.0.1:8000/v1"),
     ("[::1]:8000", "http://localhost:8000/v1"), ("[::1]:8000", "http://[::1]:8000/v1"),
     ("0.0.0.0:8000", "http://127.0.0.9:8000/v1"), ("0.0.0.0:8000", f"http://{HOST}:8000/v1"),
     ("[::]:8000", "http://127.0.0.1:8000/v1"), ("[::]:8000", "http://[::1]:8000/v1"),
     ("127.0.0.1:8000", "http://0.0.0.0:8000/v1"), ("127.0.0.1:8000", "http://[::ffff:127.0.0.1]:8000/v1"),
     ("127.0.0.1:8000", "http://127.1:8000/v1"), ("127.0.0.1:80", "http://127.0.0.1/v1"),
     ("127.0.0.1:443", "https://localhost/v1"), ("127.0.0.1:9000", "http://127.0.0.1:8001/v1")],
)  # fmt: skip
def test_an_upstream_that_is_taximeter_itself_is_refused(tmp_path: Path, listen: str, url: str) -> None:
    if ":" in listen.rpartition(":")[0] and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with pytest.raises(ConfigError, match=r"upstream\[0\]\.base_url: .* leads back to Taximeter itself"):
        load(tmp_path, f'listen = "{listen}"\n[[upstream]]\nbase_url = "{url}"\n')


@pytest.mark.parametrize(
    ("listen", "url"),
    [("127.0.0.1:8000", "http://127.0.0.1:8002/v1"), ("127.0.0.1:8000", "http://127.0.0.2:8000/v1"),
     ("0.0.0.0:8000", "http://192.0.2.1:8000/v1"), ("0.0.0.0:8000", "http://gpu-1.example:8000/v1"),
     ("127.0.0.1:0", "http://127.0.0.1:8000/v1"), ("127.0.0.1:8000", "https://api.openai.com/v1"),
     ("0.0.0.0:8000", "http://[::1]:8000/v1")],
)  # fmt: skip
def test_a_server_beside_taximeter_is_none(tmp_path: Path, listen: str, url: str) -> None:
    load(tmp_path, f'listen = "{listen}"\n[[upstream]]\nbase_url = "{url}"\n')


def test_a_native_url_may_lead_back_too_and_a_name_is_looked_up_by_check(tmp_path: Path) -> None:
    back = '[[upstream]]\nbase_url = "https://h.test/v1"\nnative_url = "http://localhost:8000"\n'
    with pytest.raises(ConfigError, match=r"native_url: .* leads back"):
        load(tmp_path, back)
    settings = load(tmp_path, '[[upstream]]\nbase_url = "http://taximeter.test:8000/v1"\n')
    (found,) = checks.loop_problems(settings.upstream[0], settings, {"taximeter.test": ["127.0.0.1"]}.__getitem__)
    assert found[0] == "base_url"
    settings.upstream[0].proxy_url = "http://proxy.test:3128"  # it is the proxy that looks it up
    assert not list(checks.loop_problems(settings.upstream[0], settings))


def test_addresses_split_and_join() -> None:
    for address in ("127.0.0.1:80", "[::1]:0", "name.test:65535"):
        assert join(*split(address)) == address
    assert split("[::1]:80") == ("::1", 80)
    assert [is_loopback(host) for host in ("127.0.0.9", "::1", "LOCALHOST", "0.0.0.0", "::", "h.test")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_urls_are_masked() -> None:
    assert masked("a redis://:p%40w@h:1/0 b https://u:p@h") == "a redis://:***@h:1/0 b https://u:***@h"
    assert masked("http://h:80/p@q") == "http://h:80/p@q"


def test_what_otel_needs_is_asked_for_before_serving(tmp_path, monkeypatch):
    settings = load(tmp_path, '[otel]\nendpoint = "http://c.test:4318"\nheaders_env = "H"\n')
    with pytest.raises(ConfigError, match=r"otel\.headers_env: the environment variable H is not set"):
        checks.before_serving(settings, {})
    checks.before_serving(settings, {"H": "a=b"})
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'taximeter\[otel\]'"):
        checks.before_serving(settings, {"H": "a=b"})


RATE = '[[rate]]\nname = "a"\n'


@pytest.mark.parametrize(
    ("toml", "path", "why"),
    [
        ('[[rate]]\nname = "a b"\nconcurrent = 1\n', "rate[0].name", "1-128 characters"),
        (RATE, "rate[0].requests_per_minute", "this rate limits nothing"),
        (f"{RATE}concurrent = 1\n" * 2, "rate[1].name", "two rates have this name"),
        (f'{RATE}concurrent = 1\nworkspace = ""\n', "rate[0].workspace", "or * for each"),
        (f'{RATE}concurrent = 1\nend_user = "a b"\n', "rate[0].end_user", "or * for each"),
        (f'{RATE}concurrent = 1\nupstream = "none"\n', "rate[0].upstream", "name one of openai"),
        (f"{RATE}concurrent = -1\n", "rate[0].concurrent", "0"),
    ],
)
def test_a_rate_that_cannot_be_meant(tmp_path: Path, toml: str, path: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, toml)
    assert path in str(refused.value) and why in str(refused.value)


def test_rates_are_read(tmp_path: Path) -> None:
    toml = f'{RATE}end_user = "*"\nrequests_per_minute = 60\nmodel = "gpt-*x"\n'
    [rate] = load(tmp_path, toml).rate
    assert rate == config.RateSettings(name="a", end_user="*", requests_per_minute=60, model="gpt-*x")
