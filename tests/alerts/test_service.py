"""What is told, once a period, over restarts and with several nodes; and that nothing is lost while nobody takes it."""

import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from mailserver import PASSWORD, USER
from receiver import Receiver
from taximeter.alerts import rule
from taximeter.alerts.book import Book
from taximeter.alerts.mail import Mailer
from taximeter.alerts.post import Poster
from taximeter.alerts.rule import Condition
from taximeter.alerts.service import CHANNELS, AlertService
from taximeter.config.settings import AlertSettings, SmtpSettings, WebhookSettings
from taximeter.sinks.redis.client import RedisServer
from waits import happens

NOW_US = 1_793_707_200_000_000
SECOND_US = 1_000_000
DOWN = Condition(kind="sink", subject="n1:redis", title="redis is down", text="It fails.")
HALF = Condition(
    kind="budget", subject="bud_1:2026-12-01:50", title="50 % used", text="…", workspace="acme", once=True, ends=False,
    shared=True,
)  # fmt: skip
ODD = Condition(kind="unpriced", subject="home/made", title="No price", text="…", ends=False, shared=True)


class Node:
    """A node's alerts, its clock, and what is so there."""

    def __init__(self, folder, *, mail=None, post=None, server=None, name="n1", **settings):
        folder.mkdir(exist_ok=True)
        self.now_us = NOW_US
        self.so: Sequence[Condition] = []
        told = {"name": "ops", "email_to": ["ops@example.org"], "period_s": 3_600.0, **settings}
        self.service = AlertService(
            [AlertSettings(**told)], Book(folder), self, node=name, mail=mail or Taken(), post=post, server=server,
            now_us=lambda: self.now_us,
        )  # fmt: skip

    async def of(self, alert):
        return list(self.so)

    async def look(self, *so, later_s=0):
        """The titles that are on their way or were sent by this look."""
        self.so = so
        self.now_us += later_s * SECOND_US
        before = {each.id for each in self.service.state.letters}
        await self.service.look()
        made = [each for each in self.service.state.letters if each.id not in before]
        for channel in CHANNELS:
            await self.service.round(channel)
        return [each.title for each in made]


class Taken:
    """A mail server's place that takes everything, or nothing."""

    def __init__(self, problem=""):
        self.problem = problem
        self.got = []

    def send(self, letter):
        if self.problem:
            return letter.to, self.problem
        self.got.append(letter.title)
        return [], ""


async def test_one_alert_a_period_however_long_it_lasts_and_one_when_it_is_over(tmp_path):
    node = Node(tmp_path)
    assert await node.look(DOWN) == ["redis is down"]
    assert await node.look(DOWN, later_s=3_599) == []
    assert await node.look(DOWN, later_s=1) == ["redis is down"]
    assert await node.look(later_s=10) == []
    assert await node.look(later_s=59) == []
    assert await node.look(later_s=1) == ["Over: redis is down"]
    assert await node.look(later_s=100) == []
    assert await node.look(DOWN, later_s=1) == []  # again, within the period
    assert await node.look(later_s=100) == [] == await node.look(later_s=100)
    assert await node.look(DOWN, later_s=3_600) == ["redis is down"]


async def test_what_comes_and_goes_is_one_alert(tmp_path):
    node = Node(tmp_path)
    told = []
    for flap in range(20):
        told += await node.look(*([DOWN] if flap % 2 == 0 else []), later_s=30)
    assert told == ["redis is down"]


async def test_a_threshold_of_a_budget_is_told_once_and_never_over(tmp_path):
    node = Node(tmp_path)
    assert await node.look(HALF) == ["50 % used"]
    assert await node.look(HALF, later_s=30 * 86_400) == []
    assert await node.look(later_s=1_000) == [] == await node.look(later_s=1_000)
    assert await node.look(replace(HALF, subject="bud_1:2027-01-01:50")) == ["50 % used"]


async def test_what_has_no_end_is_told_again_each_period_as_long_as_it_is_so(tmp_path):
    node = Node(tmp_path)
    assert await node.look(ODD) == ["No price"]
    assert await node.look(ODD, later_s=3_600) == ["No price"]
    assert await node.look(later_s=3_600) == []


async def test_a_restart_tells_nothing_twice_and_what_ended_meanwhile_is_over(tmp_path):
    node = Node(tmp_path)
    await node.look(DOWN, HALF)
    again = Node(tmp_path)
    assert await again.look(DOWN, HALF, later_s=10) == []
    third = Node(tmp_path)
    assert await third.look(HALF, later_s=20) == []
    assert await third.look(HALF, later_s=60) == ["Over: redis is down"]


async def test_a_file_that_got_broken_is_set_aside(tmp_path, caplog):
    (tmp_path / "alerts.json").write_text("{")
    node = Node(tmp_path)
    assert await node.look(DOWN) == ["redis is down"] and "alerts may come twice" in caplog.text
    assert (tmp_path / "alerts.broken").read_text() == "{"


async def test_what_is_no_longer_watched_is_not_called_over(tmp_path):
    await Node(tmp_path).look(DOWN)
    other = Node(tmp_path, on=["budget"])
    assert await other.look(later_s=100) == [] == await other.look(later_s=100)


async def test_of_several_nodes_one_tells_what_all_see_and_each_its_own(tmp_path, valkey_url):
    server = RedisServer(valkey_url)
    keys = [f"tm:alert:{rule.key_of('ops', each.kind, each.subject)}" for each in (HALF, ODD, DOWN)]
    await server.commands([("DEL", key) for key in keys])
    try:
        one, two = (Node(tmp_path / name, server=server, name=name) for name in ("one", "two"))
        own = replace(DOWN, subject="two:redis")
        assert await one.look(HALF, ODD) == ["50 % used", "No price"]
        assert await two.look(HALF, ODD, own) == ["redis is down"]
        assert [each.ours for each in two.service.state.told] == [False, False, True]
        await server.commands([("DEL", key) for key in keys])  # a Redis that came back empty
        assert await two.look(HALF, ODD, own, later_s=10) == []
        crashed = Node(tmp_path / "three", server=server, name="three")
        assert await crashed.look(ODD) == ["No price"]
        (tmp_path / "three" / "alerts.json").unlink()  # it ended before it could write down that it tells
        assert await Node(tmp_path / "three", server=server, name="three").look(ODD) == ["No price"]
    finally:
        await server.commands([("DEL", key) for key in keys])
        await server.close()


async def test_without_redis_each_node_tells_for_itself(tmp_path):
    server = RedisServer("redis://127.0.0.1:1/0")
    try:
        assert await Node(tmp_path, server=server).look(HALF) == ["50 % used"]
    finally:
        await server.close()


async def test_a_mail_server_that_is_down_loses_no_alert_not_even_over_a_restart(tmp_path, server):
    settings = SmtpSettings(
        host="localhost", port=server.port, username=USER, sender="meter@example.org", ca_file=str(server.ca_file)
    )
    mail = Mailer(settings, PASSWORD, "n1")
    await server.down()
    node = Node(tmp_path / "n1", mail=mail)
    await node.look(DOWN)
    assert node.service.standing() == (1, 0)
    await node.look(DOWN, HALF, later_s=rule.FIRST_WAIT_S)
    assert node.service.standing() == (2, 0) and node.service.state.letters[0].attempts == 2
    again = Node(tmp_path / "n1", mail=mail)
    await server.up()
    again.now_us = node.now_us
    await again.look(DOWN, HALF, later_s=int(rule.LONGEST_WAIT_S))
    assert again.service.standing() == (0, 0)
    assert sorted(got["subject"] for got in server.got) == ["[taximeter] 50 % used", "[taximeter] redis is down"]
    await again.service.close()


async def test_a_letter_nobody_takes_is_given_up_after_days_and_counted(tmp_path, caplog):
    node = Node(tmp_path, mail=Taken("no"))
    await node.look(DOWN)
    tries = 0
    while node.service.standing() == (1, 0):
        tries += 1
        await node.look(DOWN, later_s=900)
        node.service.state.letters = node.service.state.letters[:1]  # the ones of later periods are another matter
    assert 200 < tries < 400 and node.service.standing()[1] == 1 and "is given up: no" in caplog.text


async def test_letters_that_wait_are_bounded(tmp_path):
    node = Node(tmp_path, mail=Taken("no"))
    many = [replace(DOWN, subject=f"n1:{n}") for n in range(rule.MOST_LETTERS + 5)]
    node.so = many
    await node.service.look()
    assert node.service.standing() == (rule.MOST_LETTERS, 5)


async def test_a_hanging_mail_server_holds_up_neither_looks_nor_the_webhook(tmp_path, server):
    server.silent = True
    settings = SmtpSettings(
        host="localhost", port=server.port, sender="meter@example.org", security="none", timeout_s=60.0
    )
    async with Receiver() as backend:
        hook = WebhookSettings(url=f"{backend.url}/hook", format="cloudevents", secret_env="S")
        post = Poster.of(hook, {"S": "x"}, "n1", lambda: NOW_US)
        assert post is not None
        node = Node(tmp_path / "n1", mail=Mailer(settings, "", "n1"), post=post, webhook=True)
        running = asyncio.create_task(node.service.run())
        node.so = [DOWN]
        await node.service.look()
        await happens(lambda: len(backend.accepted) == 1)
        await happens(lambda: node.service.standing() == (1, 0))
        node.so = [DOWN, HALF]
        await node.service.look()
        await happens(lambda: len(backend.accepted) == 2)
        await happens(lambda: [each.channel for each in node.service.state.letters] == ["email", "email"])
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        got = backend.seen[0]
        event = got.json
        assert (event["type"], event["data"]["title"]) == ("taximeter.alert", "redis is down")
        assert got.key == event["id"] and "x-taximeter-signature" in got.headers
        server.silent = False
        await server.down()
        await post.close()


async def test_a_webhook_that_refuses_is_tried_again_under_the_same_key(tmp_path):
    async with Receiver() as backend:
        backend.script = [500, 204, 204]
        hook = WebhookSettings(url=f"{backend.url}/hook", format="cloudevents")
        post = Poster.of(hook, {}, "n1", lambda: NOW_US)
        node = Node(tmp_path, post=post, webhook=True, email_to=[])
        await node.look(DOWN)
        assert node.service.state.letters[0].problem == "answered 500"
        await node.look(DOWN, later_s=10)
        await node.look(later_s=1)
        await node.look(later_s=60)
        assert node.service.standing() == (0, 0)
        first, second, third = backend.seen
        assert first.key == second.key and third.json["type"] == "taximeter.alert.over" and third.key != first.key
        await node.service.close()


@pytest.mark.parametrize("form", ["segments", ""])
def test_a_receiver_that_takes_no_events_gets_none(form):
    settings = WebhookSettings(url="http://x/" if form else "", format="segments")
    assert Poster.of(settings, {}, "n1", lambda: 0) is None


async def test_other_settings_are_taken_and_what_was_told_stays_told(tmp_path):
    node = Node(tmp_path)
    await node.look(DOWN)
    moved = Taken()
    await node.service.use([AlertSettings(name="ops", email_to=["new@example.org"], period_s=60.0)], moved, None)
    assert await node.look(DOWN, later_s=59) == []
    assert await node.look(DOWN, later_s=1) == ["redis is down"] and moved.got == ["redis is down"]
    await node.service.use([], None, None)
    assert await node.look(DOWN, later_s=3_600) == [] and node.service.state.told == []


async def test_what_is_noticed_once_is_told_at_once_by_those_it_concerns(tmp_path):
    node = Node(tmp_path, mail=(taken := Taken()))
    await node.service.happened(HALF)
    await node.service.happened(HALF)
    await node.service.happened(replace(HALF, kind="journal", subject="x"))
    await node.service.round("email")
    assert taken.got == ["50 % used", "50 % used"]
    assert await node.look(later_s=1_000) == []  # it is not called over
    other = Node(tmp_path / "other", workspace="beta*")
    await other.service.happened(HALF)
    assert other.service.standing() == (0, 0)
