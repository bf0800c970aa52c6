"""wrk as the load: bounded in time, one Lua script per request shape; its own report, parsed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from bench.figures import LeftOut, Load
from bench.processes import LOAD_CORE

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


HEADERS = {"Authorization": "Bearer sk-bench"}


EACH_ANOTHER = """
local number = 0
function request()
  number = number + 1
  wrk.headers["Traceparent"] = string.format("00-%032x-00f067aa0ba902b7-01", number)
  return wrk.format()
end
"""
"""So that no request has the head of the one before, as where each is traced."""


def script(path: Path, body: bytes, headers: dict[str, str], *, each_another: bool = False) -> Path:
    """A Lua script that posts `body` as JSON; the body is read from a file beside it. `each_another`: heads differ."""
    payload = path.with_suffix(".json")
    payload.write_bytes(body)
    path.write_text(
        f'local f = io.open("{payload}", "rb")\n'
        'wrk.method = "POST"\nwrk.body = f:read("*a")\nf:close()\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
        + "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in {**HEADERS, **headers}.items())
        + (EACH_ANOTHER if each_another else "")
    )
    return path


def needed() -> None:
    """Raises LeftOut where wrk is not installed."""
    if shutil.which("wrk") is None:
        raise LeftOut("wrk is not installed: apt-get install wrk (or your system's package)")


def run(url: str, lua: Path, *, connections: int, seconds: float) -> Load:
    """Load `url` for `seconds`, whole ones. LeftOut: no wrk; RuntimeError: it failed, or had no answer."""
    needed()
    argv = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    done = subprocess.run(
        [*argv, "--timeout", "30s", "--latency", "-s", str(lua), url], capture_output=True, text=True, check=False
    )
    text = done.stdout
    calls = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", text)
    if done.returncode or not calls:
        raise RuntimeError(f"wrk against {url}: {text}{done.stderr}")
    if not int(calls[1]):
        raise RuntimeError(f"not one answer within {seconds:g} s to {connections} connections")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return Load(
        calls=int(calls[1]),
        rate=int(calls[1]) / (float(calls[2]) * _UNITS_S[calls[3]]),
        p50_ms=_percentile_ms(text, 50),
        p99_ms=_percentile_ms(text, 99),
        failed=(int(failed[1]) if failed else 0) + (sum(map(int, errors.groups())) if errors else 0),
    )


def _percentile_ms(text: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)", text, re.M)
    return float(found[1]) * _UNITS_S[found[2]] * 1000 if found else float("nan")
