"""What is read from file and environment, and how a mistake is answered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from taximeter import config
from taximeter.config import Settings, UpstreamSettings
from taximeter.config.found import find
from taximeter.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
SHA = "ab" * 32


def load(tmp_path: Path, toml: str = "", **environ: str) -> Settings:
    file = tmp_path / "t.toml"
    file.write_text(toml)
    return config.load(file, environ)


def as_dict(settings: Settings) -> object:
    return msgspec.to_builtins(settings)


def test_without_file_and_environment_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = config.load(environ={})
    assert settings == Settings()
    assert settings.upstream == [UpstreamSettings(forward_credentials=True)]


def test_the_file_in_the_repository_says_each_default_and_every_setting() -> None:
    import tomllib

    file = ROOT / "config/taximeter.toml"
    assert config.load(file, {}) == Settings()
    said = tomllib.loads(file.read_text())
    everything = as_dict(Settings())
    assert isinstance(everything, dict)
    everything["auth"].pop("keys")  # there as a comment, as are
    del everything["breaker"], everything["rate"], everything["alert"], everything["currency"], everything["plan"]
    del everything["reconcile"]
    del everything["export"]
    assert said == everything


def test_the_default_file_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/taximeter.toml").write_text("workers = 3")
    assert config.load(environ={}).workers == 3


def test_a_file_in_the_working_directory_itself_is_read_where_config_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taximeter.toml").write_text("workers = 4")
    assert config.load(environ={}).workers == 4
    (tmp_path / "config").mkdir()
    (tmp_path / "config/taximeter.toml").write_text("workers = 3")
    assert config.load(environ={}).workers == 3


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
@pytest.mark.parametrize("name", ["config/taximeter.toml", "taximeter.toml"])
def test_what_stands_in_the_files_place_and_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path], None]
) -> None:
    """Docker makes a directory where a file to mount is missing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    make(tmp_path / name)
    with pytest.raises(ConfigError, match=f"^{name}: cannot be read: "):
        config.load(environ={})


def test_it_says_which_file_was_read_and_which_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"TAXIMETER_WORKERS": "2", "TAXIMETER_LISTEN": "127.0.0.1:0", "HOME": "/"}
    assert find(None, {}).lines() == [
        f"no file read (no config/taximeter.toml and no taximeter.toml in {tmp_path}): the defaults are in force"
    ]
    own = tmp_path / "taximeter.toml"
    own.touch()
    assert find(None, environ).lines() == [
        f"read from {own}",
        "from the environment, over that: TAXIMETER_LISTEN, TAXIMETER_WORKERS",
    ]
    (tmp_path / "config").mkdir()
    (tmp_path / "config/taximeter.toml").touch()
    not_read = f"NOT READ: {own} (another file comes first)"
    assert find(None, {}).lines() == [f"read from {tmp_path}/config/taximeter.toml", not_read]
    assert find(own, {}).lines() == [
        f"read from {own}",
        f"NOT READ: {tmp_path}/config/taximeter.toml (another file comes first)",
    ]
    (tmp_path / "third.toml").touch()
    assert len(find(tmp_path / "third.toml", {}).lines()) == 3


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        'workers = 2\nlisten = "127.0.0.1:1"\n[redis]\nurl = "redis://a"',
        TAXIMETER_WORKERS="5",
        TAXIMETER_REDIS__URL="redis://b",
        TAXIMETER_USAGE_HEADERS="true",
        TAXIMETER_LIMITS__SHUTDOWN_S="2.5",
    )
    assert (settings.workers, settings.redis.url, settings.listen) == (5, "redis://b", "127.0.0.1:1")
    assert settings.usage_headers is True
    assert settings.limits.shutdown_s == 2.5


def _variables(tree: dict[str, object], prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{key.upper()}"
        if isinstance(value, dict) and key != "headers":
            found |= _variables(value, f"{name}__")
        else:
            found[name] = value if isinstance(value, str) else json.dumps(value)
    return found


def test_every_setting_has_a_variable(tmp_path: Path) -> None:
    tree = as_dict(Settings(workers=7, listen="127.0.0.1:7000"))
    assert isinstance(tree, dict)
    environ = _variables(tree, "TAXIMETER_")
    assert {"TAXIMETER_LISTEN", "TAXIMETER_ADMIN_LISTEN", "TAXIMETER_DATA_DIR", "TAXIMETER_HISTORY__URL"} < set(environ)
    assert load(tmp_path, **environ) == Settings(workers=7, listen="127.0.0.1:7000")


@pytest.mark.parametrize("text", ['[{"name": "a", "models": ["x"]}]', '[{name = "a", models = ["x"]}]'])
def test_a_list_in_a_variable_is_json_or_toml(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, TAXIMETER_UPSTREAM=text).upstream == [UpstreamSettings(name="a", models=["x"])]


def test_a_part_of_a_list_has_a_variable_too(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        '[[upstream]]\nname = "a"',
        TAXIMETER_UPSTREAM__0__API_KEY_ENV="A_KEY",
        TAXIMETER_UPSTREAM__1__NAME="b",
        TAXIMETER_UPSTREAM__1__MODELS='["m"]',
        TAXIMETER_TAGS__HEADERS='{"X-Tenant": "workspace"}',
    )
    one = load(tmp_path, TAXIMETER_TAGS__HEADERS__XTENANT="workspace")
    assert one.tags.headers == {"xtenant": "workspace"}
    assert settings.upstream == [
        UpstreamSettings(name="a", api_key_env="A_KEY"),
        UpstreamSettings(name="b", models=["m"]),
    ]
    assert settings.tags.headers == {"X-Tenant": "workspace"}


def test_text_refers_to_the_environment(tmp_path: Path) -> None:
    toml = 'workers = "${N}"\n[redis]\nurl = "redis://:${PW}@h/0"\n[history]\nurl = "sqlite:///$${N}"'
    settings = load(tmp_path, toml, PW="p$w", N="4")
    assert (settings.redis.url, settings.workers) == ("redis://:p$w@h/0", 4)
    assert settings.history.url == "sqlite:///${N}"


def test_what_kubernetes_adds_beside_a_service_of_our_name_is_not_ours(tmp_path: Path) -> None:
    for service in ("TAXIMETER", "TAXIMETER_HEADLESS", "TAXIMETER_REDIS", "TAXIMETER_UPSTREAM_2"):
        assert load(tmp_path, **injected(service)) == Settings()


def injected(service: str) -> dict[str, str]:
    """What Kubernetes adds for a Service with the ports data (8000) and a second one over UDP and IPv6."""
    return {
        f"{service}_SERVICE_HOST": "10.96.12.7",
        f"{service}_SERVICE_PORT": "8000",
        f"{service}_SERVICE_PORT_DATA": "8000",
        f"{service}_SERVICE_PORT_CONTROL_V2": "8001",
        f"{service}_PORT": "tcp://10.96.12.7:8000",
        f"{service}_PORT_8000_TCP": "tcp://10.96.12.7:8000",
        f"{service}_PORT_8000_TCP_PROTO": "tcp",
        f"{service}_PORT_8000_TCP_PORT": "8000",
        f"{service}_PORT_8000_TCP_ADDR": "10.96.12.7",
        f"{service}_PORT_8001_UDP": "udp://[fd00::7]:8001",
        f"{service}_PORT_8001_UDP_PROTO": "udp",
        f"{service}_PORT_8001_UDP_PORT": "8001",
        f"{service}_PORT_8001_UDP_ADDR": "fd00::7",
    }


def test_names_of_our_other_tools_pass(tmp_path: Path) -> None:
    """All that anything in the repository reads, whoever's it is, and is no setting."""
    found = set()
    for folder in ("proxy", "tests", "examples"):
        for file in (ROOT / folder).rglob("*.py"):
            said = re.compile(r"(?:environ\.get\(|envvar=|^[A-Z_]+ = )\"(TAXIMETER_\w+)\"", re.M)
            found |= set(said.findall(file.read_text()))
    assert {"TAXIMETER_PROXY_URL", "TAXIMETER_TOKEN", "TAXIMETER_BENCH_PEERS", "TAXIMETER_CORPUS"} <= found
    assert {"TAXIMETER_POINT", "TAXIMETER_STRICT"} <= found
    assert {"TAXIMETER_ADMIN_TOKEN", "TAXIMETER_URL", "TAXIMETER_KEY", "TAXIMETER_PROXY"} <= found  # those of verbs
    found = {name for name in found if "__" not in name}
    found -= {f"TAXIMETER_{name}".upper() for name in Settings.__struct_fields__}  # `status` reads one by itself
    assert load(tmp_path, **dict.fromkeys(found, "http://x.test")) == Settings()


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("TAXIMETER_AUTH_MODE", "TAXIMETER_AUTH__MODE"),
        ("TAXIMETER_ADMIN_TOKEN_SHA256", "TAXIMETER_AUTH__ADMIN_TOKEN_SHA256"),
        ("TAXIMETER_AUTH_ADMIN_TOKEN_SHA256", "TAXIMETER_AUTH__ADMIN_TOKEN_SHA256"),
        ("TAXIMETER_REDIS_URL", "TAXIMETER_REDIS__URL"),
        ("TAXIMETER__REDIS__URL", "TAXIMETER_REDIS__URL"),
        ("TAXIMETER_DATA__DIR", "TAXIMETER_DATA_DIR"),
        ("TAXIMETER_DATADIR", "TAXIMETER_DATA_DIR"),
        ("TAXIMETER_REDIS_EMBEDDED_PORT", "TAXIMETER_REDIS__EMBEDDED_PORT"),
        ("TAXIMETER_UPSTREAM_0_API_KEY_ENV", "TAXIMETER_UPSTREAM__0__API_KEY_ENV"),
        ("TAXIMETER_UPSTREAM_3_MODELS", "TAXIMETER_UPSTREAM__3__MODELS"),
        ("TAXIMETER_UPSTREAM_3_MODELS_12", "TAXIMETER_UPSTREAM__3__MODELS__12"),
        ("TAXIMETER_UPSTREAMS", "TAXIMETER_UPSTREAM"),
        ("TAXIMETER_LIMITS_SHUTDOWN_S", "TAXIMETER_LIMITS__SHUTDOWN_S"),
        ("TAXIMETER_TAGS_HEADERS", "TAXIMETER_TAGS__HEADERS"),
        ("TAXIMETER_LISTENS", "TAXIMETER_LISTEN"),
        ("taximeter_auth__mode", "TAXIMETER_AUTH__MODE"),
        ("TAXIMETER_PROXYURL", "TAXIMETER_PROXY_URL"),
        ("TAXIMETER_PORT", "TAXIMETER_LISTEN"),
        ("TAXIMETER_MODE", "TAXIMETER_AUTH__MODE"),
        ("TAXIMETER_ADMINTOKEN", "TAXIMETER_ADMIN_TOKEN"),
    ],
)
def test_a_name_that_is_nearly_right_is_refused_with_the_right_one(tmp_path: Path, variable: str, meant: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, **{variable: "hunter2"})
    assert str(raised.value) == f"{variable}: there is no such setting. Did you mean {meant}?"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TAXIMETER_PORT", "8000"),  # Kubernetes would say tcp://…
        ("TAXIMETER_PORT_8000_TCP", "8000"),
        ("TAXIMETER_SERVICE_HOST", "taximeter.internal"),
        ("TAXIMETER_SERVICE_NAME", "taximeter"),
        ("TAXIMETER_", "x"),
        ("TAXIMETER_XYZ", ""),
        ("TAXIMETER_TAGS__HEADER__X", "workspace"),
    ],
)
def test_no_other_name_of_ours_is_ignored(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{variable}: there is no such setting"):
        load(tmp_path, **{variable: value})


def test_an_entry_within_an_entry_is_a_setting(tmp_path: Path) -> None:
    told = {"NAME": "a", "BASE_URL": "http://a.test/v1", "MODELS__0": "x-*", "MODELS__1": "y-*"}
    settings = load(tmp_path, **{f"TAXIMETER_UPSTREAM__0__{name}": value for name, value in told.items()})
    assert settings.upstream[0].models == ["x-*", "y-*"]


def test_every_setting_with_one_underscore_too_few_is_refused_with_its_name(tmp_path: Path) -> None:
    tree = as_dict(Settings())
    assert isinstance(tree, dict)
    for name in _variables(tree, "TAXIMETER_"):
        if "__" in name:
            with pytest.raises(ConfigError, match=rf"Did you mean {name}\?$"):
                load(tmp_path, **{name.replace("__", "_"): "x"})


def test_the_billing_backends_own_names_are_aliases(tmp_path: Path) -> None:
    backend = {"BIZNDER_API_BASE_URL": "https://b.test/", "BIZNDER_SERVICE_TOKEN": "secret"}
    webhook = load(tmp_path, **backend).webhook
    assert (webhook.url, webhook.token_env) == (
        "https://b.test/api/v1/webhooks/knowledge/metrics",
        "BIZNDER_SERVICE_TOKEN",
    )
    stronger = load(tmp_path, '[webhook]\nurl = "https://own.test/hook"\ntoken_env = "T"', **backend).webhook
    assert (stronger.url, stronger.token_env) == ("https://own.test/hook", "T")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("worker = 2", "t.toml: worker: there is no such setting. Did you mean 'workers'?"),
        ('[redis]\nulr = "x"', "t.toml: redis.ulr: there is no such setting. Did you mean 'url'?"),
        ('[redis]\nx = "x"', "t.toml: redis.x: there is no such setting. Known here: embedded_port, split, url."),
        ("workers = 0", "workers: 0 is not allowed; it must be a whole number, at least 1, at most 128."),
        ('workers = "many"', "workers: 'many' is not allowed; it must be a whole number"),
        ("workers = true", "workers: True is not allowed; it must be a whole number"),
        ('usage_headers = "maybe"', "usage_headers: 'maybe' is not allowed; it must be true or false."),
        ("listen = 8000", "listen: 8000 is not allowed; it must be text."),
        ('[limits]\nhead_timeout_s = "x"', "limits.head_timeout_s: 'x' is not allowed; it must be a number, over 0,"),
        ('[journal]\nfsync = "no"', 'journal.fsync: \'no\' is not allowed; it must be one of "interval", "always"'),
        ('redis = "redis://x"', "redis: 'redis://x' is not allowed; it must be a list or table"),
        ("redis = 1", "redis: 1 is not allowed; it must be a table: [redis]."),
        ('[upstream]\nname = "a"', "upstream: {'name': 'a'} is not allowed; it must be a list of tables: [[upstream]]"),
        ("[[upstream]]\nmodels = 1", "upstream[0].models: 1 is not allowed; it must be a list of texts"),
        ("[tags]\nheaders = 1", "tags.headers: 1 is not allowed; it must be a table of texts"),
        ('[[auth.keys]]\nid = "a"', "auth.keys[0]: sha256 and workspace must be given."),
        ('[redis]\nurl = "${NOT_THERE}"', "redis.url: environment variable NOT_THERE is not set."),
        ("workers = ", "t.toml: not valid TOML: Invalid value (at end of document)."),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, toml)
    assert str(raised.value).startswith(str(tmp_path / "t.toml"))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "TAXIMETER_REDIS__ULR",
            "x",
            "TAXIMETER_REDIS__ULR: there is no such setting. Did you mean TAXIMETER_REDIS__URL?",
        ),
        (
            "TAXIMETER_REDS__URL",
            "x",
            "TAXIMETER_REDS__URL: there is no such setting. Did you mean TAXIMETER_REDIS__URL?",
        ),
        ("TAXIMETER_WORKER", "2", "TAXIMETER_WORKER: there is no such setting. Did you mean TAXIMETER_WORKERS?"),
        ("TAXIMETER_WORKERS", "", "TAXIMETER_WORKERS: workers: '' is not allowed; it must be a whole number"),
        (
            "TAXIMETER_WORKERS__X",
            "1",
            "TAXIMETER_WORKERS__X: there is no such setting. Did you mean TAXIMETER_WORKERS?",
        ),
        ("TAXIMETER_UPSTREAM__2__NAME", "x", "TAXIMETER_UPSTREAM__2__NAME: '2' is no place in upstream, which has 1"),
        ("TAXIMETER_UPSTREAM", "[{", "TAXIMETER_UPSTREAM: upstream: '[{' is not allowed; it must be a list or table"),
        ("TAXIMETER_UPSTREAM", '[{"nam": 1}]', "TAXIMETER_UPSTREAM: upstream[0].nam: there is no such setting."),
    ],
)
def test_a_mistake_in_a_variable_is_named(tmp_path: Path, variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, 'workers = 2\n[[upstream]]\nname = "a"', **{variable: value})
    assert str(raised.value).startswith(message)


def test_a_part_beside_the_whole_in_the_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="upstream is already given as a whole by TAXIMETER_UPSTREAM"):
        load(tmp_path, TAXIMETER_UPSTREAM="[]", TAXIMETER_UPSTREAM__0__NAME="x")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file or directory\."):
        config.load(tmp_path / "none.toml", {})
    (tmp_path / "b.toml").write_bytes(b"workers = \xff")
    with pytest.raises(ConfigError, match=r"b\.toml: not UTF-8 text \(at byte 10\)\."):
        config.load(tmp_path / "b.toml", {})


def test_secrets_stay_out_of_repr_and_messages(tmp_path: Path) -> None:
    settings = load(tmp_path, f'[redis]\nurl = "redis://u:hunter2@h/0"\n[auth]\nadmin_token_sha256 = "{SHA}"')
    assert "hunter2" not in repr(settings)
    assert SHA not in repr(settings)
    assert "redis://u:***@h/0" in repr(settings)
    for toml in (
        '[redis]\nurl = "ftp://u:hunter2@h/0"',
        '[auth]\nadmin_token_sha256 = "hunter2"',
        '[[upstream]]\napi_key_env = "sk-hunter2"',
    ):
        with pytest.raises(ConfigError) as raised:
            load(tmp_path, toml)
        assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"to": "gs://bucket"}, r"export\[0\].to.*other addresses are not known"),
        ({"to": "s3://"}, r"export\[0\].to.*it must be a folder"),
        ({"to": "/srv/x", "formats": []}, r"export\[0\].formats.*it names no format"),
        ({"to": "/srv/x", "formats": ["xlsx"]}, "xlsx"),
    ],
)
def test_an_export_that_leads_nowhere_is_refused(tmp_path: Path, told: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load(tmp_path, TAXIMETER_EXPORT=msgspec.json.encode([told]).decode())
