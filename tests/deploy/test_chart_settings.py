"""Every settings file the chart renders passes `taximeter check`, with the environment the container is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.chart import CASES, container, named, rendered, with_helm
from upstream import Provider
from valkeys import Server, free_ports, running

pytestmark = with_helm


def mounted(text: str, folder: Path) -> Path:
    """The ConfigMap as the container sees it."""
    for name, content in named(text, "ConfigMap", "t-taximeter")["data"].items():
        (folder / name).write_text(content)
    return folder / "taximeter.toml"


def told(text: str, folder: Path, secrets: dict[str, str]) -> dict[str, str]:
    """The container's environment, what comes from Secrets filled in, and its paths and ports made this machine's."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), **secrets}
    for one in container(text)["env"]:
        source = one.get("valueFrom", {})
        if "secretKeyRef" in source:
            reference = source["secretKeyRef"]
            environ[one["name"]] = secrets[f"{reference['name']}/{reference['key']}"]
        else:
            environ[one["name"]] = one.get("value", "taximeter-0").replace("/etc/taximeter", str(folder))
    (folder / "data").mkdir()
    return environ | {
        "TAXIMETER_DATA_DIR": str(folder / "data"),
        "TAXIMETER_LISTEN": "0.0.0.0:0",
        "TAXIMETER_ADMIN_LISTEN": "0.0.0.0:0",
    }


def checked(file: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    names = {name: value for name, value in environ.items() if "/" not in name}
    command = [sys.executable, "-m", "taximeter", "check", "--config", str(file)]
    return subprocess.run(command, env=names, capture_output=True, text=True, check=False, cwd=file.parent)


@pytest.mark.parametrize("case", CASES)
async def test_the_rendered_settings_pass_the_check(case: str, tmp_path: Path) -> None:
    """With a Valkey and a provider that are there, as they are in a cluster."""
    text = rendered(case)
    [port] = free_ports(1)
    valkey = Server(tmp_path / "valkey", port)
    async with Provider() as provider, running(valkey):
        secrets = {
            "t-taximeter-admin/sha256": "ab" * 32, "t-taximeter-key/sha256": "cd" * 32, "OPENAI_API_KEY": "sk-1",
            "admin/sha256": "ab" * 32, "first-key/sha256": "cd" * 32, "nodes/secret": "x" * 32,
            "redis/url": f"redis://127.0.0.1:{port}/0", "history/url": f"sqlite:///{tmp_path}/history.db",
            "TAXIMETER_UPSTREAM__0__BASE_URL": provider.base_url,
        }  # fmt: skip
        done = checked(mounted(text, tmp_path), told(text, tmp_path, secrets))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "upstream[0].base_url = " in done.stdout
    keys = [line for line in done.stdout.splitlines() if line.startswith("auth.keys[") and ".id = " in line]
    expected = {
        "default": [],
        "keys": ["auth.keys[0].id = 'declared'", "auth.keys[1].id = 'rag'"],
        "several": ["auth.keys[0].id = 'first'"],
    }
    assert keys == expected[case]
    assert f"auth.mode = {'open' if case == 'default' else 'keys'!r}" in done.stdout
    if case == "keys":
        for host in ("t-taximeter.default.svc", "t-taximeter-control", "taximeter.example.com", "taximeter.internal",
                     "metering"):  # fmt: skip
            assert f"'{host}'" in done.stdout, host
        assert f"prices_file = '{tmp_path}/prices.toml'" in done.stdout
