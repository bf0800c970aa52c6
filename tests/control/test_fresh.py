"""Usage is visible the moment the client has its answer: real journal, real delivery, real history."""

import asyncio

import pytest

from control_plane import ControlPlane, record
from journals import now_us
from taximeter.config import JournalSettings
from taximeter.core.record import Open, Operation
from taximeter.delivery import Delivery
from taximeter.journal import Journal
from taximeter.sinks.history.sink import History


@pytest.fixture
async def node(tmp_path):
    """A worker's journal and the control plane of one node: (journal, control)."""
    journal = Journal(tmp_path / "journal", node="n", worker="1", settings=JournalSettings(), now_us=now_us)
    history = History(f"sqlite:///{tmp_path / 'history.db'}")
    control = ControlPlane(tmp_path, history)
    delivery = Delivery(
        tmp_path / "journal", [history, control.live], settings=JournalSettings(), node="n", now_us=now_us
    )
    control.use(delivery)
    running = asyncio.ensure_future(delivery.run())
    async with control:
        yield journal, control
    running.cancel()
    await asyncio.wait([running])
    journal.shutdown()
    await history.close()


def opening(number, **given):
    return Open(
        request_id=f"req-{number}", started_at=now_us(), workspace="acme", upstream="openai", provider="openai",
        api="chat", operation=Operation.LLM, **given,
    )  # fmt: skip


async def test_every_question_after_a_close_sees_it(node):
    journal, control = node
    for number in range(1, 21):
        file = journal.open(opening(number))
        journal.close(file, record(number, ended_at=now_us()))
        shown = await control.get("/usage")
        assert (shown["usage"]["requests"], shown["complete"], shown["lag_seconds"]) == (number, True, 0)
        assert (await control.get(f"/usage/requests/req-{number}"))["data"][0]["input_tokens"] == 100


async def test_a_track_in_flight_is_told_and_can_be_waited_for(node):
    journal, control = node
    file = journal.open(opening(1, track="t"))
    shown = await control.get("/usage/tracks/t", workspace="acme", wait=0.2)
    assert (shown["in_flight"], shown["complete"], shown["usage"]["requests"]) == (1, False, 0)
    waiting = asyncio.ensure_future(control.get("/usage/tracks/t", workspace="acme", wait=20))
    await control.get("/usage")  # the waiting question has been received by now
    assert not waiting.done()
    journal.close(file, record(1, track="t", ended_at=now_us()))
    shown = await waiting
    assert (shown["in_flight"], shown["complete"], shown["token_usage"]["llm_input_tokens"]) == (0, True, 100)
