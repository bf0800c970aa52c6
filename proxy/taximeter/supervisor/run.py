"""`serve`: from checked settings to running children, through reloads, and back to nothing in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from taximeter import __version__
from taximeter.config import Settings
from taximeter.config.envfile import variables
from taximeter.core.errors import TaximeterError
from taximeter.node.child import LEAVE
from taximeter.node.datadir import DataDir, Runtime
from taximeter.node.descriptors import raise_limit
from taximeter.node.logs import log_to_stderr
from taximeter.node.reloaded import forget_reloaded
from taximeter.supervisor.keeper import StartError
from taximeter.supervisor.listening import address_of, handed_over, listen
from taximeter.supervisor.processes import Inherited, Processes
from taximeter.supervisor.reload import Read, Reloading

VALKEY_WAIT_S = 10.0
"""A Valkey that loads a large file for longer is not waited for: calls are relayed, and counted once it is there."""
MARGIN_S = 15.0
"""Beyond limits.shutdown_s: what a worker may take to settle cancelled calls before it is killed."""
DRAIN_S = 30.0
"""What control may take to deliver the last records; they are in the journal in any case."""


def serve(settings: Settings, file: Path | None, read: Read, announce: Callable[[Runtime], None]) -> None:
    """Run until SIGTERM or SIGINT. `announce` is called once everything serves; `read` reads the settings (from `file`)
    again, for a reload.

    Raises DataDirError, ListenError, ValkeyError, StartError when it cannot start.
    """
    from setproctitle import setproctitle

    setproctitle("taximeter: supervisor")
    log_to_stderr("supervisor", settings.log)
    raise_limit()
    os.umask(0o077)  # the children's too: Valkey's and SQLite's files, which name no mode, are for this user alone
    data_dir = DataDir(Path(settings.data_dir))
    with contextlib.ExitStack() as opened:
        opened.callback(data_dir.release)
        lock = data_dir.children_lock()
        opened.callback(os.close, lock)
        given = handed_over(settings)
        data = opened.enter_context(given.get("listen") or listen("listen", settings.listen))
        control = opened.enter_context(given.get("admin_listen") or listen("admin_listen", settings.admin_listen))
        boots = (
            opened.enter_context(tempfile.TemporaryFile()),
            opened.enter_context(tempfile.TemporaryFile()),
        )
        supervisor = Supervisor(settings, file, read, data_dir, Inherited(data, control, boots, lock))
        try:
            asyncio.run(supervisor.run(announce))
        except BaseExceptionGroup as group:
            ours = group.subgroup(TaximeterError)
            if ours is None:
                raise
            raise _first_leaf(ours) from None


def _first_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Supervisor:
    """One node, from its start to its end. Create it inside no loop; `run` it once."""

    def __init__(
        self, settings: Settings, file: Path | None, read: Read, data_dir: DataDir, inherited: Inherited
    ) -> None:
        self.data_dir = data_dir
        self.leaving = asyncio.Event()
        """Told to stop."""
        self.stopping = asyncio.Event()
        """No more calls are accepted."""
        self.processes = Processes(settings, variables(settings.env_file), data_dir, inherited, self.stopping)
        self.reloading = Reloading(self.processes, read, file, self._publish)
        self._addresses = address_of(inherited.data), address_of(inherited.control)
        self._started_at = 0
        self._terminal = _has_terminal()

    async def run(self, announce: Callable[[Runtime], None]) -> None:
        """Start, watch, and end in order. Raises StartError, in an ExceptionGroup."""
        self._hear_signals()
        forget_reloaded(self.data_dir.path)
        try:
            async with asyncio.TaskGroup() as group:
                for keeper in self.processes.keepers:
                    group.create_task(keeper.run())
                group.create_task(self._prepare())
                working = group.create_task(self._work(announce, group))
                await self.leaving.wait()
                working.cancel()
                await self._leave()
                await self._end_in_order()
        finally:
            await self._end_in_order()

    async def _prepare(self) -> None:
        """Tell children what they have to know; let them go once the prices are there."""
        now = self.processes
        if await now.prepare(now.boot, now.settings, now.environ) and not self.stopping.is_set():
            raise StartError("The prices cannot be used; the reason is above.")
        now.prepared.set()

    async def _work(self, announce: Callable[[Runtime], None], group: asyncio.TaskGroup) -> None:
        """Wait until everything serves, and say so; then take other settings whenever there are any."""
        now = self.processes
        for keeper in (now.control, *now.workers):
            await keeper.ready.wait()
        for keeper in now.valkey:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(keeper.ready.wait(), VALKEY_WAIT_S)
        self._started_at = time.time_ns() // 1_000
        announce(self._publish())
        await self.reloading.run(group.create_task)

    def _publish(self) -> Runtime:
        """Tell others on this machine what runs."""
        now = self.processes
        runtime = Runtime(
            pid=os.getpid(),
            version=__version__,
            node=self.data_dir.node(now.settings.node),
            listen=self._addresses[0],
            admin_listen=self._addresses[1],
            workers=len(now.workers),
            redis_url=now.redis_url_shown,
            redis_url_file=now.redis_url_file,
            started_at=self._started_at,
        )
        self.data_dir.publish(runtime)
        return runtime

    async def _leave(self) -> None:
        """Let load balancers and clients find another node, while calls are still taken: limits.shutdown_delay_s."""
        delay_s = self.processes.settings.limits.shutdown_delay_s
        if delay_s:
            self.processes.tell(LEAVE)
            await asyncio.sleep(delay_s)

    async def _end_in_order(self) -> None:
        """Workers first, so that control sees their last records; Valkey last, so that control can deliver them."""
        self.stopping.set()
        now = self.processes
        now.close_data_port()
        if now.pricing is not None and now.pricing.check() is None:
            now.pricing.kill()
        async with asyncio.TaskGroup() as group:
            for worker in (*now.workers, *now.dismissed):
                group.create_task(worker.end(now.settings.limits.shutdown_s + MARGIN_S))
        await now.control.end(DRAIN_S)
        now.close_control_port()
        for valkey in now.valkey:
            await valkey.end(DRAIN_S)

    def _hear_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self.processes.look)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # held back since the first moment of the start
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._told_to_stop, number)

    def _hung_up(self) -> None:
        """SIGHUP: read the settings again; or the terminal it was started in has been closed."""
        if self._terminal and not _terminal_is_there():
            self._told_to_stop(signal.SIGHUP)
        else:
            self.reloading.ask()

    def _told_to_stop(self, number: int) -> None:
        """The first time in order; the second time at once."""
        if not self.leaving.is_set():
            self.leaving.set()
            return
        now = self.processes
        for keeper in (*now.workers, *now.dismissed, now.control):
            for child in keeper.children:
                if not child.exited.is_set():
                    child.kill()
        for keeper in now.valkey:
            if keeper.child is not None and not keeper.child.exited.is_set():
                keeper.child.terminate()  # it ends by itself, with its file whole
        os._exit(128 + number)


def _has_terminal() -> bool:
    """Whether this runs in somebody's terminal, whose end ends us; not under nohup, which keeps it from us."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return False
    return _terminal_is_there()


def _terminal_is_there() -> bool:
    """Whether there is a controlling terminal now: none any more once it was closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
