"""The webhook against a real HTTP receiver that fails in every way; time is the test's own, so an hour takes none."""

import hashlib
import hmac

import msgspec
import pytest

from ledger import batch, call
from receiver import Receiver
from taximeter.config import WebhookSettings as Settings
from taximeter.sinks.history.sink import History
from taximeter.sinks.webhook.sink import Webhook
from waits import HANG_S

NOW = 1_795_348_800_000_000

SECOND = 1_000_000


class Place:
    """One node's webhook, its history and its clock; `restart` ends it at once and begins anew."""

    def __init__(self, url, receiver):
        self.url, self.receiver, self.now = url, receiver, NOW
        self.settings = Settings(url=f"{receiver.url}/api/v1/webhooks/knowledge/metrics", idle_s=300, timeout_s=HANG_S)
        self.seq = 0
        self.begin()

    def begin(self):
        self.history = History(self.url)
        self.webhook = Webhook(
            self.settings, self.history, node="n1", token="t0ken", secret="s3cret", now_us=lambda: self.now,
            dice=lambda: 1.0,
        )  # fmt: skip

    async def restart(self):
        await self.end()
        self.begin()

    async def end(self):
        await self.webhook.close()
        await self.history.close()

    async def use(self, *records):
        assert await self.webhook.deliver([batch(records, "j1", self.seq)]) == {"j1": self.seq + len(records)}
        self.seq += len(records)

    async def rounds(self, seconds, step_s=1):
        """Let time pass, looking at the books every `step_s`."""
        for _ in range(0, seconds, step_s):
            while await self.webhook.round():
                pass
            self.now += step_s * SECOND


@pytest.fixture
async def receiver():
    async with Receiver() as running:
        yield running


@pytest.fixture
async def place(url, receiver):
    place = Place(url, receiver)
    yield place
    await place.end()


async def test_a_segment_arrives_authorized_signed_and_under_its_key(place, receiver):
    await place.use(call(track="upload-7", input_tokens=7, output_tokens=3))
    assert await place.webhook.cut("acme", "upload-7") is True
    await place.rounds(1)
    (got,) = receiver.seen
    assert got.path == "/api/v1/webhooks/knowledge/metrics"
    assert got.headers["authorization"] == "Bearer t0ken" and got.headers["content-type"] == "application/json"
    assert got.key == "n1:acme:upload-7:1"
    assert (got.json["track_id"], got.json["metrics"]["total_tokens"]) == ("upload-7", 10)
    signed = dict(part.split("=") for part in got.headers["x-taximeter-signature"].split(","))
    expected = hmac.new(b"s3cret", f"{signed['t']}.".encode() + got.body, hashlib.sha256).hexdigest()
    assert (signed["v1"], int(signed["t"])) == (expected, NOW // SECOND)
    assert await place.webhook.cut("acme", "upload-7") is False
    assert await place.webhook.letters() == []


async def test_an_idle_track_is_sent_and_what_comes_later_is_the_next_segment(place, receiver):
    await place.use(call(track="t", input_tokens=7))
    await place.rounds(299)
    assert receiver.seen == []
    await place.rounds(2)
    await place.use(call(track="t", input_tokens=5))
    await place.rounds(302)
    assert [(got.key, got.json["metrics"]["prompt_tokens"]) for got in receiver.seen] == [
        ("n1:acme:t:1", 7),
        ("n1:acme:t:2", 5),
    ]


@pytest.mark.parametrize("failure", [500, 302, 400, "hang", "close"])
async def test_a_failure_is_tried_again_with_the_same_key_and_body(place, receiver, failure):
    receiver.script = [failure, failure]
    if failure == "hang":
        place.settings = msgspec.structs.replace(place.settings, timeout_s=1.0)
        await place.restart()
    await place.use(call(track="t"))
    await place.webhook.cut("acme", "t")
    await place.rounds(8)
    assert len({(got.key, got.body) for got in receiver.seen}) == 1 and len(receiver.seen) == 3
    assert receiver.times == {"n1:acme:t:1": 1}
    assert await place.webhook.letters() == []


async def test_a_lost_answer_is_sent_again_under_the_key_the_receiver_knows(place, receiver):
    receiver.script = ["lose"]
    await place.use(call(track="t"))
    await place.webhook.cut("acme", "t")
    await place.rounds(4)
    assert receiver.times == {"n1:acme:t:1": 2} and len(receiver.accepted) == 1


async def test_the_receivers_own_wish_to_wait_is_kept(place, receiver):
    receiver.script, receiver.headers = [503], "retry-after: 60\r\n"
    await place.use(call(track="t"))
    await place.webhook.cut("acme", "t")
    await place.rounds(59)
    assert len(receiver.seen) == 1
    await place.rounds(3)
    assert len(receiver.seen) == 2


async def test_a_receiver_down_for_an_hour_gets_everything_afterwards_once_per_key(place, receiver):
    used = 0
    await receiver.down()
    for minute in range(60):
        await place.use(*(call(track=f"t{n}", input_tokens=n + minute) for n in range(3)))
        used += sum(n + minute for n in range(3))
        if minute % 10 == 0:
            await place.webhook.cut("acme", "t0")
        if minute == 30:
            await place.restart()
        await place.rounds(60, step_s=15)
    assert receiver.accepted == {}
    await receiver.up()
    receiver.script = [500, "lose", 503, "close", "lose"]
    await place.rounds(2_400, step_s=15)
    assert {"n1:acme:t0:1", "n1:acme:t1:1", "n1:acme:t2:1"} <= receiver.accepted.keys()
    assert sum(got.json["metrics"]["prompt_tokens"] for got in receiver.accepted.values()) == used
    assert [key for key, times in receiver.times.items() if times > 1] == [
        key for key, times in receiver.times.items() if times == 2
    ]
    assert sum(times - 1 for times in receiver.times.values()) == 2  # the two whose answers were lost
    assert await place.webhook.letters() == []


async def test_after_the_last_attempt_a_letter_is_kept_shown_and_resent(place, receiver, caplog):
    place.settings.max_attempts = 3
    receiver.usually = 500
    await place.use(call(track="t"))
    await place.webhook.cut("acme", "t")
    await place.rounds(30)
    assert len(receiver.seen) == 3 and place.webhook.dead == 1 and place.webhook.waiting == 0
    (dead,) = await place.webhook.letters(dead=True)
    assert (dead.key, dead.attempts, dead.problem) == ("n1:acme:t:1", 3, "answered 500")
    assert "n1:acme:t:1 is given up after 3 attempts: answered 500" in caplog.text
    await place.restart()
    receiver.usually = 204
    assert await place.webhook.resend() == 1
    await place.rounds(2)
    assert receiver.times == {"n1:acme:t:1": 1} and place.webhook.dead == 0


async def test_a_sender_that_died_in_mid_attempt_sends_again_after_its_lease(place, receiver):
    await place.use(call(track="t"))
    await place.webhook.cut("acme", "t")
    await place.webhook._do(lambda books: books.claim(place.now, 5_500_000, 8))  # and never tells what became of it
    await place.restart()
    await place.rounds(5)
    assert receiver.seen == []
    await place.rounds(3)
    assert receiver.times == {"n1:acme:t:1": 1}


async def test_events_are_sent_one_a_record_with_its_id(place, receiver):
    place.settings.format = "cloudevents"
    await place.use(call(track="t"), call(), call(kind="correction", cost_nusd=-5))
    await place.rounds(2)
    assert sorted(got.key for got in receiver.seen) == ["j1:1", "j1:2", "j1:3"]
    assert {got.headers["content-type"] for got in receiver.seen} == {"application/cloudevents+json"}
    assert sorted(got.json["id"] for got in receiver.seen) == ["j1:1", "j1:2", "j1:3"]
    assert {got.json["data"]["cost_nusd"] for got in receiver.seen} == {27_000, -5}


BATCH = "application/cloudevents-batch+json"


async def test_events_go_together_as_openmeter_takes_them(place, receiver):
    place.settings.format, place.settings.batch_events = "cloudevents", 3
    receiver.script = [503]
    await place.use(*(call() for _ in range(6)))
    await place.rounds(4)
    assert [got.headers["content-type"] for got in receiver.seen] == [BATCH] * 3
    accepted = [event for got in receiver.accepted.values() for event in got.json]
    assert sorted(event["id"] for event in accepted) == [f"j1:{seq}" for seq in range(1, 7)]
    assert {event["source"] for event in accepted} == {"urn:taximeter:n1"} and await place.webhook.letters() == []
    assert all({"specversion", "type", "subject", "time", "data"} <= set(event) for event in accepted)
    refused, again = receiver.seen[0], receiver.seen[2]
    assert (again.body, again.key) == (refused.body, refused.key)  # the same events, the same key
    stamp, _, signed = refused.headers["x-taximeter-signature"].removeprefix("t=").partition(",v1=")
    assert signed == hmac.new(b"s3cret", f"{stamp}.".encode() + refused.body, hashlib.sha256).hexdigest()


async def test_an_event_that_is_refused_holds_up_none_that_came_with_it(place, receiver):
    place.settings.format, place.settings.batch_events, place.settings.max_attempts = "cloudevents", 10, 1
    receiver.script = [400, 204, 422]
    await place.use(call(), call(), call())
    await place.rounds(2)
    assert [got.headers["content-type"] == BATCH for got in receiver.seen] == [True, False, False, False]
    (dead,) = await place.webhook.letters(dead=True)
    assert dead.problem == "answered 422"
    assert len({got.key for got in receiver.accepted.values()}) == 2


async def test_without_token_and_secret_neither_header_is_sent(place, receiver):
    await place.webhook.close()
    place.webhook = Webhook(place.settings, place.history, node="n1", token="", secret="", now_us=lambda: place.now)
    await place.use(call(track="t"))
    await place.webhook.cut("acme", "t")
    await place.rounds(1)
    assert receiver.seen[0].headers.keys().isdisjoint({"authorization", "x-taximeter-signature"})
