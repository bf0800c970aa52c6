"""Which Python a figure is of, and how that was built: an interpreter laid out by a profile takes a fifth less.

Its configuration does not always say: Debian passes the profile to make, not to configure, and its flags look like
those of a plain build. The machine code does. A compiler with a profile sorts functions by how often they run, so the
functions of one source file lie megabytes apart; without one they stand together as the file has them.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import re
import subprocess
import sysconfig
from pathlib import Path

from bench import peers, rounds
from bench.figures import LeftOut, Measured, Spread, of_proxy, ratios
from bench.node import taximeter
from bench.scenarios import UNARY

OF_ONE_FILE = (
    "PyList_New", "PyList_Append", "PyList_Insert", "PyList_GetSlice", "PyList_Sort", "PyList_Reverse",
)  # fmt: skip
"""Functions of listobject.c, some of them run all the time and some hardly ever."""
LARGEST_FILE_BYTES = 64 * 1024
"""Those functions span 8 to 10 KB in a plain build (3.8 to 3.13), 1.5 MB in Debian's 3.11."""

VENVS = (".venv", ".venv-bench/*")
"""Where environments of this tree are: that of all work, and those that `make bench PYTHON=…` makes."""
PROGRAM = "from bench.interpreter import described; print(described())"


def spread_bytes() -> int:
    """How far apart the functions of one source file lie in this interpreter."""
    places = [ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0 for name in OF_ONE_FILE]
    return max(places) - min(places)


def built(configured: str, flags: str, apart_bytes: int) -> str:
    """In the words of configure's options: `-O3, no PGO, no LTO`. LTO is known by configure's arguments only."""
    level = (re.findall(r"-O\w", flags) or ["no -O"])[-1]
    optimised = "--enable-optimizations" in configured or apart_bytes > LARGEST_FILE_BYTES
    lto = "LTO" if "--with-lto" in configured or "-flto" in flags else "LTO not told" if optimised else "no LTO"
    return f"{level}, {'PGO' if optimised else 'no PGO'}, {lto}"


def described() -> str:
    """This interpreter: `Python 3.11.2 (GCC 12.2.0 -O2, PGO, LTO not told)`."""
    told = sysconfig.get_config_vars()
    how = built(str(told.get("CONFIG_ARGS")), f"{told.get('OPT')} {told.get('PY_CFLAGS')}", spread_bytes())
    return f"Python {platform.python_version()} ({platform.python_compiler()} {how})"


def environments(root: Path) -> dict[str, Path]:
    """Interpreters that Taximeter is installed for, by their description; of two alike the first."""
    found: dict[str, Path] = {}
    for pattern in VENVS:
        for stamp in sorted(root.glob(f"{pattern}/.installed")):
            python = stamp.parent / "bin" / "python"
            argv = [str(python), "-c", PROGRAM]
            env = {"PYTHONPATH": f"{root}/tests:{root}/proxy"}
            done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
            if not done.returncode:
                found.setdefault(done.stdout.strip(), python)
    return found


def measure(root: Path, turns: int, seconds: float) -> list[str]:
    """Taximeter under each interpreter there is, beside nginx, in one set of rounds. Raises LeftOut where one is."""
    pythons = environments(root)
    if len(pythons) < 2:
        raise LeftOut("there is one interpreter; make bench PYTHON=/usr/bin/python3 installs for another")
    starts: dict[str, rounds.Start] = {"nginx": peers.nginx}
    for name, python in pythons.items():
        starts[name] = functools.partial(taximeter, name=name, python=str(python))
    return page(rounds.compare(UNARY, starts, rounds=turns, seconds=seconds), list(pythons))


def page(measured: Measured, names: list[str]) -> list[str]:
    """The first is the one that the others are compared with, within a round."""
    lines = [
        "The same node under each interpreter that `make bench` was run with, on one core beside nginx.",
        "",
        "| interpreter | CPU µs a call | × nginx | × the first |",
        "|---|---:|---:|---:|",
    ]
    for name in names:
        mine = of_proxy(measured.turns, name)
        cells = [Spread.of(turn.cpu_us for turn in mine).shown()]
        for floor in ("nginx", names[0]):
            times = ratios(measured.turns, name, floor)
            cells.append("1" if floor == name else Spread.of(times).shown(2) if times else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
