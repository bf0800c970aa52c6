import pytest

from ledger import batch, call
from taximeter.config import WebhookSettings as Settings
from taximeter.sinks.webhook.sink import Webhook
from taximeter.sinks.webhook.store import LetterResult

NOW = 1_793_707_200_000_000


@pytest.fixture
async def posted(start):
    """A control plane with one letter waiting and one given up."""
    control = await start()
    webhook = Webhook(Settings(url="http://127.0.0.1:9/"), control.history, node="n1", token="", secret="",
                      now_us=lambda: NOW)  # fmt: skip
    await webhook.deliver([batch([call(track="waiting"), call(track="dead")], "j1")])
    await webhook.cut("acme", "dead")
    (letter,) = await webhook._do(lambda books: books.claim(NOW, 1, 8))
    await webhook._do(lambda books: books.finish([LetterResult(key=letter.key, problem="answered 500", dead=True)]))
    await webhook.cut("acme", "waiting")
    made = await start(letters=webhook)
    yield made
    await webhook.close()


async def test_letters_are_listed_and_the_dead_ones_sent_again(posted):
    shown = (await posted.get("/webhook"))["data"]
    assert [(each["key"], each["state"], each["problem"]) for each in shown] == [
        ("n1:acme:dead:1", "dead", "answered 500"),
        ("n1:acme:waiting:1", "waiting", ""),
    ]
    assert [each["key"] for each in (await posted.get("/webhook", dead="true"))["data"]] == ["n1:acme:dead:1"]
    answer = await posted.client.post("/webhook/resend", json={"keys": ["n1:acme:dead:1", "no:such:letter:1"]})
    assert answer.json() == {"resent": 1}
    assert (await posted.get("/webhook", dead="true"))["data"] == []
    assert (await posted.client.post("/webhook/resend", json={})).json() == {"resent": 0}


async def test_without_a_webhook_there_is_no_outbox(control):
    assert (await control.client.get("/webhook")).status_code == 404
