"""The image, really built from the Dockerfile, meters a call with a root it cannot write to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from deploy.image import CannotBuild, Image, build_image, buildah, make_base, why_not
from deploy.tools import REPO
from taximeter.keys.rule import digest
from upstream import Provider
from valkeys import free_ports

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.xdist_group("image"),  # built once
    pytest.mark.timeout(1200),
]
TOKEN = "the admin's own token"
OURS_MB = 215
"""Most that we may put into an image, with OpenTelemetry: 38 MB of it are tokenizers' vocabularies, 18 what signs."""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with buildah() as build:
        try:
            base = make_base(build)
        except CannotBuild as error:
            pytest.skip(str(error))
        yield Image.of(build, build_image(build, base, EXTRAS="otel"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A volume of the image's user."""
    folder = tmp_path / "volume"
    folder.mkdir()
    folder.chmod(0o777)
    for parent in folder.parents[:3]:  # pytest's folders are root's own
        parent.chmod(parent.stat().st_mode | 0o011)
    return folder


def packages(image: Image) -> Path:
    [found] = (image.root / "opt/taximeter/lib").glob("python3.*/site-packages")
    return found


def test_nothing_is_in_it_that_only_builds_or_makes_things_up(image: Image) -> None:
    there = {file.name.partition("-")[0].lower() for file in packages(image).iterdir()}
    assert there >= {"taximeter", "litestar", "splintr", "opentelemetry"}
    assert there.isdisjoint({"pip", "setuptools", "wheel", "hatchling", "faker", "polyfactory", "pyarrow", "pytest"})
    assert not list((image.root / "opt").glob("build*")) and not (image.root / "src").exists()


def test_it_is_no_larger_than_it_was(image: Image) -> None:
    sizes = [file.lstat().st_size for file in (image.root / "opt/taximeter").rglob("*") if file.is_file()]
    assert 100 < sum(sizes) / 1e6 < OURS_MB


def test_everything_is_compiled_since_nothing_can_be_later(image: Image) -> None:
    for name in ("taximeter", "litestar", "sqlalchemy"):
        sources = list((packages(image) / name).rglob("*.py"))
        compiled = {file.name.partition(".")[0] for file in (packages(image) / name).rglob("*.pyc")}
        assert len(sources) > 50 and {file.stem for file in sources} <= compiled


def test_it_says_how_it_is_run(image: Image) -> None:
    assert image.config["User"] == "10001:10001"
    assert image.config["Volumes"] == {"/data": {}}
    assert image.config["Entrypoint"] == ["taximeter"] and image.config["Cmd"] == ["serve"]
    assert (image.root / "data").stat().st_uid == 10001


def test_its_settings_are_checked(image: Image, data: Path) -> None:
    done = image.run(data, "check", TAXIMETER_LISTEN="127.0.0.1:0", TAXIMETER_ADMIN_LISTEN="127.0.0.1:0",
                     TAXIMETER_OTEL__ENDPOINT="http://127.0.0.1:9")  # fmt: skip
    assert "otel.endpoint = 'http://127.0.0.1:9'" in done.stdout, done.stderr
    assert "FAILED safe to serve" not in done.stdout and done.returncode != 2
    done = image.run(data, "check", TAXIMETER_HISTORY__ULR="x")
    assert done.returncode == 2 and "TAXIMETER_HISTORY__URL" in done.stderr


async def test_it_meters_a_call_and_writes_to_its_volume_only(image: Image, data: Path) -> None:
    """Anything written elsewhere would fail: the root is read-only."""
    listen, control = free_ports(2)
    async with Provider() as provider, httpx2.AsyncClient(timeout=60) as client:
        told = {
            "TAXIMETER_LISTEN": f"127.0.0.1:{listen}",
            "TAXIMETER_ADMIN_LISTEN": f"127.0.0.1:{control}",
            "TAXIMETER_AUTH__ADMIN_TOKEN_SHA256": digest(TOKEN),
            "TAXIMETER_UPSTREAM__0__BASE_URL": provider.base_url,
        }
        async with image.serving(data, **told):
            asked = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}]}
            answer = await client.post(f"http://127.0.0.1:{listen}/w/acme/v1/chat/completions", json=asked)
            assert answer.status_code == 200, answer.text
            used = answer.json()["usage"]
            request_id = answer.headers["x-taximeter-request-id"]
            usage = await client.get(
                f"http://127.0.0.1:{control}/usage",
                params={"workspace": "acme", "after": request_id},
                headers={"authorization": f"Bearer {TOKEN}"},
            )
            told_usage = usage.json()["usage"]
            assert told_usage["requests"] == 1
            assert told_usage["llm"]["input_tokens"] == used["prompt_tokens"]
            assert told_usage["llm"]["output_tokens"] == used["completion_tokens"]
            ready = await client.get(f"http://127.0.0.1:{control}/readyz")
            assert ready.status_code == 200
            # The health check: the host's python here, since another process cannot enter the run's mounts.
            command = [sys.executable, "-m", "taximeter", "status"]
            environ = {"TAXIMETER_DATA_DIR": str(data), "PYTHONPATH": str(REPO / "proxy")}
            assert subprocess.run(command, env=environ, check=False).returncode == 0
    assert {"journal", "history.db", "valkey"} <= {file.name for file in data.iterdir()}
