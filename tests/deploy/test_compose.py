"""compose.yaml: its syntax as Compose's specification has it, and that its parts fit each other and the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.tools import BRINGS, REPO, VENV
from postgres import Postgres, binaries
from upstream import Provider
from valkeys import Server, free_ports, running

FILE = REPO / "compose.yaml"
SECRETS = {"ADMIN_TOKEN_SHA256": "ab" * 32, "POSTGRES_PASSWORD": "secret", "GRAFANA_PASSWORD": "secret"}
PYTHON = VENV / "bin/python"
PARSE = """
import sys, compose_spec
parsed = compose_spec.PyCompose.from_yaml(sys.stdin.read())
parsed.validate()
print(" ".join(sorted(parsed.service_names())))
"""


def compose() -> dict[str, Any]:
    """With its variables filled in, as Compose does from `.env`; the file as it stands says how to make that."""
    text = re.sub(r"\$\{(\w+)(:\?[^}]*)?\}", lambda named: SECRETS[named[1]], FILE.read_text())
    assert "${" not in text
    return yaml.safe_load(text)


def service(name: str) -> dict[str, Any]:
    return compose()["services"][name]


def mounts(name: str) -> dict[str, str]:
    """Where in the container -> file or folder of the repository, or the name of a volume."""
    return {target: source for source, target, *_ in (mount.split(":") for mount in service(name)["volumes"])}


def parsed(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PYTHON), "-c", PARSE], input=text, capture_output=True, text=True, check=False)


@pytest.mark.skipif(
    not list(VENV.glob("lib/python*/site-packages/compose_spec")), reason=f"compose-spec is not there; {BRINGS}"
)
def test_it_is_as_the_specification_has_it() -> None:
    done = parsed(yaml.safe_dump(compose()))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["grafana", "postgres", "prometheus", "taximeter", "valkey"]
    for wrong in (("read_only:", "read_onli:"), ("service_healthy", "service_healty")):
        assert parsed(yaml.safe_dump(compose()).replace(*wrong)).returncode != 0


def test_the_lines_at_its_top_make_the_variables_it_asks_for(tmp_path: Path) -> None:
    lines = [line.removeprefix("#   ") for line in FILE.read_text().splitlines() if line.startswith("#   ")]
    script = "\n".join(lines[: next(number for number, line in enumerate(lines) if "docker compose up" in line)])
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, check=True)
    made = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())
    asked = set(re.findall(r"\$\{(\w+):\?", FILE.read_text()))
    assert made.keys() == asked == SECRETS.keys()
    assert re.fullmatch("[0-9a-f]{64}", made["ADMIN_TOKEN_SHA256"]) and all(made.values())


def test_nothing_is_reached_from_another_machine() -> None:
    for name, one in compose()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", [])), name


def test_what_it_mounts_is_there_and_what_it_keeps_is_declared() -> None:
    told = compose()
    for name, one in told["services"].items():
        for source in mounts(name).values():
            assert (REPO / source).exists() if source.startswith("./") else source in told["volumes"], source
        assert {each["source"] for each in one.get("configs", [])} <= told["configs"].keys()


def test_taximeter_runs_with_nothing_to_write_to_but_its_volume() -> None:
    one = service("taximeter")
    assert one["read_only"] and one["tmpfs"] == ["/tmp"] and mounts("taximeter") == {"/data": "taximeter"}
    assert one["cap_drop"] == ["ALL"] and one["stop_grace_period"] == "90s"
    assert "noeviction" in service("valkey")["command"]


@pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed (Debian: apt install postgresql)")
async def test_its_settings_pass_the_check_with_a_real_valkey_and_postgresql(tmp_path: Path) -> None:
    environ = {name: str(value) for name, value in service("taximeter")["environment"].items()}
    names = {environ["TAXIMETER_REDIS__URL"], environ["TAXIMETER_HISTORY__URL"]}
    assert names == {"redis://valkey:6379/0", "postgresql://taximeter:secret@postgres/taximeter"}
    assert {"valkey", "postgres"} == service("taximeter")["depends_on"].keys()
    [port] = free_ports(1)
    with Postgres() as server:
        async with Provider() as provider, running(Server(tmp_path / "valkey", port)):
            environ |= {
                "PATH": os.environ["PATH"],
                "TAXIMETER_LISTEN": "0.0.0.0:0",
                "TAXIMETER_ADMIN_LISTEN": "0.0.0.0:0",
                "TAXIMETER_DATA_DIR": str(tmp_path / "data"),
                "TAXIMETER_REDIS__URL": f"redis://127.0.0.1:{port}/0",
                "TAXIMETER_HISTORY__URL": server.database(),
                "TAXIMETER_UPSTREAM__0__BASE_URL": provider.base_url,
            }
            command = [sys.executable, "-m", "taximeter", "check"]
            done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "control.open_metrics = True" in done.stdout


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt install prometheus)"
)
def test_prometheus_reads_its_configuration_and_scrapes_taximeter(tmp_path: Path) -> None:
    inside = {target: REPO / source for target, source in mounts("prometheus").items() if source.startswith("./")}
    for target, source in inside.items():
        shutil.copy(source, tmp_path / Path(target).name)
    [config] = service("prometheus")["configs"]
    text = compose()["configs"][config["source"]]["content"]
    (tmp_path / "prometheus.yml").write_text(text)
    assert f"--config.file={config['target']}" in service("prometheus")["command"]
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, check=False
    )
    assert done.returncode == 0 and done.stdout.count(b"rules found") == 2, done.stdout + done.stderr
    told, ours = yaml.safe_load(text), yaml.safe_load((REPO / "config/prometheus/prometheus.yml").read_text())
    assert (told["global"], told["rule_files"]) == (ours["global"], ours["rule_files"])
    [job] = told["scrape_configs"]
    assert job["job_name"] == "taximeter"  # as the alerts ask
    host, port = job["static_configs"][0]["targets"][0].split(":")
    assert host in compose()["services"]
    assert service(host)["environment"]["TAXIMETER_ADMIN_LISTEN"].endswith(f":{port}")
    assert f'"{host}"' in service(host)["environment"]["TAXIMETER_CONTROL__ALLOWED_HOSTS"]


def test_grafana_finds_its_data_source_and_its_dashboards() -> None:
    [config] = service("grafana")["configs"]
    told = yaml.safe_load(compose()["configs"][config["source"]]["content"])
    ours = yaml.safe_load((REPO / "config/grafana/provisioning/datasources/taximeter.yml").read_text())
    [source], [expected] = told["datasources"], ours["datasources"]
    assert source == expected | {"url": "http://prometheus:9090"}
    assert config["target"].startswith("/etc/grafana/provisioning/datasources/")
    provided = yaml.safe_load((REPO / "config/grafana/provisioning/dashboards/taximeter.yml").read_text())
    folder = mounts("grafana")[provided["providers"][0]["options"]["path"]]
    assert len(list((REPO / folder).glob("*.json"))) >= 4
    assert mounts("grafana")["/etc/grafana/provisioning/dashboards"] == "./config/grafana/provisioning/dashboards"
