"""The control process: delivery to every sink, and the control plane on the inherited control port.

`python -m taximeter.control.process.main`, by the supervisor. It may die and come back without a request noticing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys

import uvloop
from msgspec.structs import replace

from taximeter.config import LimitSettings, Settings
from taximeter.control.app import create
from taximeter.control.dashboard import warm
from taximeter.control.door.trust import warning
from taximeter.control.process import course
from taximeter.control.process.pages import Pages
from taximeter.control.process.parts import Parts
from taximeter.control.process.priority import freeze, give_way, thaw
from taximeter.core.errors import TaximeterError
from taximeter.node.child import LEAVE, REFUSED, TAKE, TAKEN, Boot, Child
from taximeter.server.asgi import asgi
from taximeter.server.server import Server

log = logging.getLogger("taximeter.control")

WARM_S = 2.0
"""After the start, when what has to be ready at once is."""
ORPHAN_S = 30
"""How long the end may take where the supervisor is gone; what is not delivered by then, the next start delivers."""
REQUESTS_S = 5.0
"""How long queries and downloads may go on after a stop."""


def main() -> None:
    """Deliver and answer until SIGTERM, or until the supervisor is gone."""
    child = Child("control")
    give_way()
    boot = child.wait()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Control(boot, child).run())
    except TaximeterError as error:
        log.critical("Error: %s", error)
        sys.exit(1)


class Control:
    """The parts, and the port their pages are on. Raises TaximeterError where the settings or the data directory cannot
    be used."""

    def __init__(self, boot: Boot, child: Child) -> None:
        self.child = child
        self.parts = Parts(boot, os.environ)
        self.pages = Pages(self.parts)
        self.server = Server(asgi(create(self.pages.services())), _limits(boot.settings))

    async def run(self) -> None:
        """Serve until told to stop; then bring the last records to the sinks."""
        child, server, parts = self.child, self.server, self.parts
        if words := warning(parts.settings):
            log.warning("%s", words)
        await course.prepare(parts)

        def started() -> None:
            freeze()
            child.ready()

        server.on_started = started
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [*course.begin(parts, group), group.create_task(_warm())]

                def stop() -> None:
                    tasks.append(group.create_task(parts.live.close()))  # else its watchers would hold the server
                    server.stop()

                child.on_order(TAKE, lambda which: tasks.append(group.create_task(self._take(int(which), group))))
                child.on_order(LEAVE, lambda _: self._leave())
                child.on_stop(stop, orphan_s=ORPHAN_S)
                with child.socket() as listener:
                    await server.serve([listener])
                await course.end(parts, tasks, orphaned=child.orphaned)
        finally:
            await course.close(parts)

    async def _take(self, which: int, group: asyncio.TaskGroup) -> None:
        """Go by other settings from now on; where they cannot be used, nothing has changed."""
        child, parts = self.child, self.parts
        try:
            boot = child.boot(which)
            environ = child.environ(boot)
            force = await asyncio.to_thread(parts.made, boot, environ)
            collector = parts.made_collector(boot, environ)
        except Exception as error:  # whatever is wrong with them, the ones of before go on
            log.error("These settings cannot be used: %s", error, exc_info=not isinstance(error, TaximeterError))
            child.answer(REFUSED, str(error) or type(error).__name__)
            return
        come, go = await parts.use(force, collector)
        child.use(boot)
        self.server.service.handler = asgi(create(self.pages.services()))
        self.server.service.limits = _limits(force.settings)
        parts.deliver_to(come, go)
        parts.send(group)
        child.answer(TAKEN)
        for sink in go:
            await sink.close()
        thaw()
        freeze()

    def _leave(self) -> None:
        self.parts.state.leaving = True
        self.server.leave()


async def _warm() -> None:
    """What the first look at the dashboard would have to wait for; what goes wrong here is the page's to tell."""
    await asyncio.sleep(WARM_S)
    with contextlib.suppress(Exception):
        await asyncio.to_thread(warm)


def _limits(settings: Settings) -> LimitSettings:
    return replace(settings.limits, shutdown_s=REQUESTS_S)


if __name__ == "__main__":
    main()
