"""What the gateway hears of a client."""

import asyncio
import gc
import weakref

from taximeter.gateway.client import Watch


async def test_a_watch_that_was_begun_is_freed_without_the_collector():
    """The collector runs rarely in a worker: what a call leaves in a cycle would pile up to tens of megabytes."""

    class Client:
        async def receive(self):
            await asyncio.Event().wait()

    client = Client()
    gone = weakref.ref(client)
    watch = Watch(client.receive, lambda: None)
    gc.disable()
    try:
        watch.begin()
        await asyncio.sleep(0)  # it listens
        watch.stop()
        del watch, client
        await asyncio.sleep(0)  # it is cancelled
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()
