"""Which files count as changed, and when."""

from __future__ import annotations

import os
from pathlib import Path

from taximeter.config import AuthSettings, Settings, UpstreamSettings
from taximeter.supervisor.watching import Watched


def test_a_change_counts_once_it_has_stood_for_a_look(tmp_path: Path) -> None:
    file = tmp_path / "taximeter.toml"
    file.write_text("workers = 1")
    watched = Watched(Settings(), file)
    assert not watched.changed()
    file.write_text("workers = 22")
    assert not watched.changed(), "it may still be being written"
    assert watched.changed()
    watched.taken()
    assert not watched.changed()


def test_every_file_that_settings_name_counts(tmp_path: Path) -> None:
    names = ("ca.pem", "cert.pem", "key.pem", "password", "secret", "prices.toml", "env")
    for name in names:
        (tmp_path / name).write_text("one")
    settings = Settings(
        upstream=[
            UpstreamSettings(
                ca_file=str(tmp_path / "ca.pem"),
                client_cert_file=str(tmp_path / "cert.pem"),
                client_key_file=str(tmp_path / "key.pem"),
                client_key_password_file=str(tmp_path / "password"),
            )
        ],
        auth=AuthSettings(shared_secret_file=str(tmp_path / "secret")),
        prices_file=str(tmp_path / "prices.toml"),
        env_file=str(tmp_path / "env"),
    )
    watched = Watched(settings, None)
    for name in names:
        (tmp_path / name).write_text("another")
        assert [watched.changed(), watched.changed()] == [False, True], name
        watched.taken()


def test_what_kubernetes_exchanges_behind_a_link_is_seen(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "KEY").write_text(f"sk-{number}")
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "..data").symlink_to(tmp_path / "..1")
    (folder / "KEY").symlink_to("..data/KEY")
    watched = Watched(Settings(env_file=str(folder)), None)
    assert not watched.changed()
    (folder / "next").symlink_to(tmp_path / "..2")
    os.replace(folder / "next", folder / "..data")
    assert [watched.changed(), watched.changed()] == [False, True]


def test_a_file_that_comes_or_goes_is_a_change(tmp_path: Path) -> None:
    file = tmp_path / "taximeter.toml"
    watched = Watched(Settings(), file)
    file.touch()
    assert [watched.changed(), watched.changed()] == [False, True]
    watched.taken()
    file.unlink()
    assert [watched.changed(), watched.changed()] == [False, True]
