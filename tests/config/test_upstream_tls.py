"""TLS to an upstream: files that are there, can be read and belong together; and no proxy that is not spoken."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from taximeter.config import Settings, UpstreamSettings, WebhookSettings
from taximeter.config.checks import before_serving, check
from taximeter.config.upstream_tls import context_of, problems
from taximeter.core.errors import ConfigError

AUTHORITY = trustme.CA()
SECRET = "correct horse"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """ca.pem, mine.pem (both), mine.crt, mine.key, locked.key (with SECRET), other.key, secret, wrong, text."""
    mine, other = AUTHORITY.issue_cert("client.example"), AUTHORITY.issue_cert("other.example")
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine.private_key_and_cert_chain_pem.write_to_path(tmp_path / "mine.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "mine.crt")
    mine.private_key_pem.write_to_path(tmp_path / "mine.key")
    other.private_key_pem.write_to_path(tmp_path / "other.key")
    key = serialization.load_pem_private_key(mine.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(SECRET.encode()),
    )
    (tmp_path / "locked.key").write_bytes(locked)
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "wrong").write_text("battery staple")
    (tmp_path / "text").write_text("no PEM")
    return tmp_path


def upstream(files: Path, **named: str) -> UpstreamSettings:
    return msgspec.structs.replace(UpstreamSettings(), **{key: str(files / name) for key, name in named.items()})


@pytest.mark.parametrize(
    "named",
    [
        {"ca_file": "ca.pem"},
        {"client_cert_file": "mine.pem"},
        {"client_cert_file": "mine.crt", "client_key_file": "mine.key"},
        {"client_cert_file": "mine.crt", "client_key_file": "locked.key", "client_key_password_file": "secret"},
    ],
)
def test_what_can_be_used(files: Path, named: dict[str, str]) -> None:
    settings = upstream(files, **named)
    assert list(problems(settings)) == []
    context_of(settings)


@pytest.mark.parametrize(
    "named, key, why",
    [
        ({"ca_file": "text"}, "ca_file", "no certificate"),
        ({"ca_file": "gone"}, "ca_file", "no such file"),
        ({"client_cert_file": "gone"}, "client_cert_file", "no such file"),
        ({"client_cert_file": "text"}, "client_cert_file", "cannot be read"),
        ({"client_cert_file": "mine.crt"}, "client_cert_file", "cannot be read"),
        ({"client_cert_file": "mine.crt", "client_key_file": "gone"}, "client_key_file", "no such file"),
        ({"client_cert_file": "mine.crt", "client_key_file": "other.key"}, "client_key_file", "does not belong"),
        (
            {"client_cert_file": "mine.crt", "client_key_file": "locked.key"},
            "client_key_file",
            "an encrypted key needs",
        ),
        (
            {"client_cert_file": "mine.crt", "client_key_file": "locked.key", "client_key_password_file": "wrong"},
            "client_key_file",
            "with that password",
        ),
        ({"client_key_file": "mine.key"}, "client_key_file", "says nothing without client_cert_file"),
    ],
)
def test_what_cannot_is_told_before_a_restart(files: Path, named: dict[str, str], key: str, why: str) -> None:
    settings = Settings(upstream=[upstream(files, **named)])
    with pytest.raises(ConfigError, match=rf"upstream\[0\]\.{key}: .*{why}"):
        check(settings, lambda path: "file")


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4"])
def test_socks_is_refused(scheme: str) -> None:
    settings = Settings(upstream=[UpstreamSettings(proxy_url=f"{scheme}://h:1080")])
    with pytest.raises(ConfigError, match=r"upstream\[0\]\.proxy_url: .*SOCKS is not spoken"):
        check(settings, lambda path: "file")


def test_no_proxy_leads_to_a_unix_socket() -> None:
    settings = Settings(upstream=[UpstreamSettings(base_url="unix:/a.sock:/v1", proxy_url="http://h:8080")])
    with pytest.raises(ConfigError, match="no proxy leads to a unix socket"):
        check(settings, lambda path: "file")
    check(Settings(upstream=[UpstreamSettings(base_url="unix:/a.sock:/v1")]), lambda path: "file")
    with pytest.raises(ConfigError, match=r"base_url: .*an absolute path"):
        check(Settings(upstream=[UpstreamSettings(base_url="unix:a.sock")]), lambda path: "file")


@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "https_proxy"])
def test_socks_from_the_environment_is_refused_where_it_would_be_used(variable: str) -> None:
    environ = {variable: "socks5://h:1080"}
    settings = Settings(upstream=[UpstreamSettings(forward_credentials=True)])
    before_serving(settings, environ)
    settings.webhook = WebhookSettings(url="http://billing.example/hook")
    with pytest.raises(ConfigError, match=f"webhook.url: .*{variable}, and SOCKS is not spoken"):
        before_serving(settings, environ)
    before_serving(settings, {variable: "http://h:8080"})
