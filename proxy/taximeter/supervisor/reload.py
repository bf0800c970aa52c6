"""Other settings for a running node, without a call that is refused or dropped.

They are read and judged as a whole first. Then one new worker has to become ready, and control has to take them; until
both have happened nothing has changed, and whatever goes wrong refuses them. Then workers are replaced one by one: the
new one accepts before the old one stops, which ends behind its calls.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

import taximeter
from taximeter import __version__
from taximeter.config import Settings
from taximeter.config.changes import changed, kept, need_restart
from taximeter.config.checks import before_serving
from taximeter.config.envfile import environment, variables
from taximeter.core.errors import TaximeterError
from taximeter.node.audit import AuditLog
from taximeter.node.child import SERVE, TAKE
from taximeter.node.logs import log_to_stderr
from taximeter.node.reloaded import Reloaded, write_reloaded
from taximeter.supervisor.keeper import START_ATTEMPTS, Keeper
from taximeter.supervisor.process import Process
from taximeter.supervisor.processes import Processes
from taximeter.supervisor.watching import Watched

log = logging.getLogger("taximeter")

Read = Callable[[], tuple[Settings, Path | None]]
"""The settings as they are now, and their file. May block. Raises ConfigError."""
Spawn = Callable[[Coroutine[Any, Any, None]], object]
"""Runs something beside."""
ANSWER_S = 60.0
"""A control process that has not taken the settings by then is started again, with those of before."""
LOOK_S = 1.0
"""How often files are looked at with `reload_on_change`: a `stat` each."""


class Refused(TaximeterError):
    """These settings are not taken; the message says why."""


class Reloading:
    """Takes other settings whenever it is asked to, one set at a time."""

    def __init__(
        self, processes: Processes, read: Read, file: Path | None, changed_workers: Callable[[], object]
    ) -> None:
        """`changed_workers` is called when there are more or fewer of them."""
        self.processes = processes
        self._read = read
        self._changed_workers = changed_workers
        self._asked: Literal["signal", "file"] | None = None
        self._wake = asyncio.Event()
        self._watched = Watched(processes.settings, file)

    def ask(self) -> None:
        """On SIGHUP."""
        self._asked = "signal"
        self._wake.set()

    async def run(self, spawn: Spawn) -> None:
        """Until cancelled. `spawn` runs what looks after a further worker."""
        while True:
            if self._asked is None:
                await self._look()
                continue
            by, self._asked = self._asked, None
            self._wake.clear()
            reloaded = await self._reload(by, spawn)
            await asyncio.to_thread(self._note, reloaded)
            try:
                write_reloaded(self.processes.data_dir.path, reloaded)
            except OSError as error:
                log.error("What became of the reload cannot be written down: %s", error)

    def _note(self, told: Reloaded) -> None:
        """Into the audit log: which settings are others now, by their paths."""
        now = self.processes
        audit = AuditLog(now.data_dir.path, node=now.data_dir.node(now.settings.node))
        audit.note(
            "settings.reload",
            {"signal": "by SIGHUP", "file": "by a changed file"}[told.asked_by],
            after={"changed": told.changed, "waits_for_restart": told.restart} if told.applied else None,
            outcome="ok" if told.applied else "failed",
            problem="; ".join(told.problems),
            level=logging.DEBUG,  # the log has it already
        )

    async def _look(self) -> None:
        """Wait until somebody asks, or a file has changed."""
        try:
            async with asyncio.timeout(LOOK_S if self.processes.settings.reload_on_change else None):
                await self._wake.wait()
        except TimeoutError:
            if self._watched.changed():
                self._asked = "file"

    async def _reload(self, by: Literal["signal", "file"], spawn: Spawn) -> Reloaded:
        now = self.processes
        told = Reloaded(began_at=_now_us(), ended_at=0, asked_by=by, applied=False, problems=[], changed=[], restart=[])
        before, boot = now.settings, 1 - now.boot
        try:
            settings, environ, told.restart = await self._judged()
            await self._try(boot, settings, environ)
            told.applied = True
            told.changed = changed(before, settings) + (["env_file"] if environ != now.environ else [])
            now.take(boot, settings, environ)
            log_to_stderr("supervisor", settings.log)
            told.problems = await self._replace_workers(boot, spawn)
        except (TaximeterError, OSError) as error:
            told.problems.append(str(error))
        except Exception as error:  # an outer loop: whatever it is, the node goes on
            log.exception("A fault while settings were read again")
            told.problems.append(f"{type(error).__name__}: {error}")
        told.ended_at = _now_us()
        _log(told)
        return told

    async def _judged(self) -> tuple[Settings, dict[str, str], list[str]]:
        """The settings to take, their variables, and which settings wait for a restart. Raises ConfigError."""
        before = self.processes.settings
        self._watched.taken()
        installed = await asyncio.to_thread(_installed)
        if installed != __version__:
            raise Refused(
                f"Version {installed} is installed and {__version__} runs: restart. New workers would be others."
            )
        wanted, file = await asyncio.to_thread(self._read)
        before_serving(wanted, environment(wanted.env_file, os.environ))
        settings = kept(before, wanted)
        environ = variables(settings.env_file)
        before_serving(settings, environment(settings.env_file, os.environ))  # as a mixture they might be unsafe
        self._watched.follow(settings, file)
        return settings, environ, need_restart(changed(before, wanted))

    async def _try(self, boot: int, settings: Settings, environ: dict[str, str]) -> None:
        """Prices compiled, a worker ready, control going by them: or nothing at all. Raises Refused."""
        now, first = self.processes, self.processes.workers[0]
        problem = await now.prepare(boot, settings, environ) or await first.bring(now.next_worker(1, boot))
        if problem:
            raise Refused(problem)
        problem = await self._ask_control(f"{TAKE} {boot}")
        if problem:
            await first.drop()
            raise Refused(problem)
        _let_serve(first)

    async def _ask_control(self, order: str) -> str:
        child = self.processes.control.child
        if not isinstance(child, Process):
            return "The control process has not started yet; try again."
        try:
            async with asyncio.timeout(ANSWER_S):
                return await child.ask(order)
        except TimeoutError:
            child.kill()
            return f"The control process did not answer in {ANSWER_S:g} s; it is started again with the old settings."

    async def _replace_workers(self, boot: int, spawn: Spawn) -> list[str]:
        """The other workers, one after the other; returns what did not work."""
        now = self.processes
        wanted, problems = now.settings.workers, []
        for number, keeper in enumerate(now.workers[1:wanted], 2):
            for _ in range(START_ATTEMPTS):
                problem = await keeper.bring(now.next_worker(number, boot))
                if not problem:
                    _let_serve(keeper)
                    break
            else:
                problems.append(f"{problem} One with the old settings goes on.")
        for number in range(len(now.workers) + 1, wanted + 1):
            keeper = now.worker(number)
            problem = await keeper.bring(now.next_worker(number, boot))
            if problem:
                problems.append(problem)
                break
            _let_serve(keeper)
            now.workers.append(keeper)
            spawn(keeper.run())
        while len(now.workers) > wanted:
            now.dismissed.append(now.workers.pop())
            now.dismissed[-1].dismiss()
        self._changed_workers()
        return problems


def _let_serve(keeper: Keeper) -> None:
    """The successor, which is ready, accepts calls; then the one before it stops accepting."""
    if isinstance(keeper.successor, Process):
        keeper.successor.tell(SERVE)
    keeper.succeed()


def _log(told: Reloaded) -> None:
    if not told.applied:
        log.error("The settings are not taken, the ones of before go on: %s", "; ".join(told.problems))
        return
    log.info("The settings are read again. Changed: %s", ", ".join(told.changed) or "none")
    for problem in told.problems:
        log.error("%s", problem)
    for path in told.restart:
        log.warning("%s changed: restart to apply", path)


def _installed() -> str:
    """The version that a child started now would be."""
    said = re.search(r'__version__ = "(.+?)"', Path(taximeter.__file__).read_text(encoding="utf-8"))
    return said[1] if said else __version__


def _now_us() -> int:
    return time.time_ns() // 1_000
