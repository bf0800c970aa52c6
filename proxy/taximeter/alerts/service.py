"""Looking what is worth an alert, remembering what was told, and sending it, whatever the mail server does meanwhile.

Looking and sending are loops of their own, and mail is sent in a thread of its own: nothing here holds up delivery.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from taximeter.alerts import rule
from taximeter.alerts.book import Book, encoded
from taximeter.alerts.rule import Channel, Condition, Letter, Plan, Told
from taximeter.config.settings import AlertSettings
from taximeter.core.errors import TaximeterError
from taximeter.core.globs import glob
from taximeter.sinks.redis.client import ERRORS, RedisServer

log = logging.getLogger("taximeter.alerts")

CHANNELS: tuple[Channel, ...] = ("email", "webhook")
POLL_S = 1.0
"""How often it is looked for letters that are due while nobody says that there are."""
SLACK_S = 5
"""A claim in Redis ends so long before the period: what this node told last is its own word on when to tell again."""


class Conditions(Protocol):
    """What is so now (see alerts.conditions)."""

    async def of(self, alert: AlertSettings) -> list[Condition]: ...


class Mail(Protocol):
    """What sends e-mail (see alerts.mail)."""

    def send(self, letter: Letter) -> tuple[list[str], str]: ...


class Post(Protocol):
    """What posts to the webhook (see alerts.post)."""

    async def __call__(self, letter: Letter) -> str: ...

    async def close(self) -> None: ...


class AlertService:
    """The alerts of one node."""

    def __init__(
        self,
        alerts: Sequence[AlertSettings],
        book: Book,
        sources: Conditions,
        *,
        node: str,
        mail: Mail | None,
        post: Post | None,
        server: RedisServer | None,
        now_us: Callable[[], int],
    ) -> None:
        """`server`: the Redis that nodes share; None: there are no other nodes."""
        self._take(alerts)
        self._book = book
        self.state = book.read()
        self._sources = sources
        self._node = node
        self._mail = mail
        self._post = post
        self._server = server
        self._now_us = now_us
        self._wake = {channel: asyncio.Event() for channel in CHANNELS}
        self._writing = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="alert-mail")

    async def use(self, alerts: Sequence[AlertSettings], mail: Mail | None, post: Post | None) -> None:
        """Go by other settings from now on; what was told stays told, and what is on its way goes on."""
        before, self._mail, self._post = self._post, mail, post
        self._take(alerts)
        if before is not None and before is not post:
            await before.close()

    def _take(self, alerts: Sequence[AlertSettings]) -> None:
        self._alerts = {each.name: each for each in alerts}
        self._plans = {name: _plan(each) for name, each in self._alerts.items()}

    def standing(self) -> tuple[int, int]:
        """Letters on their way, and how many were ever given up."""
        return len(self.state.letters), self.state.given_up

    async def close(self) -> None:
        """A mail on its way is not waited for: it is sent again after the next start, under the same id."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._post is not None:
            await self._post.close()

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────

    async def look(self) -> None:
        """See what is to be told, and what is over. Raises DataDirError."""
        changed = False
        for name, alert in self._alerts.items():
            changed |= await self._tell(self._plans[name], await self._sources.of(alert))
        now_us = self._now_us()
        before = len(self.state.told)
        self.state.told = [each for each in self.state.told if rule.kept(each, self._plans, now_us)]
        if changed or len(self.state.told) != before:
            await self._save()
            for wake in self._wake.values():
                wake.set()

    async def happened(self, condition: Condition) -> None:
        """Tell of what is noticed once, by one node of all. Raises DataDirError."""
        now_us, changed = self._now_us(), False
        for name, alert in self._alerts.items():
            plan = self._plans[name]
            if condition.kind not in plan.kinds or not glob(alert.workspace)(condition.workspace):
                continue
            if (condition.kind, condition.subject) not in rule.known(self.state.told, plan):
                self._told(plan, condition, None, now_us, ours=True)
                changed = True
        if changed:
            await self._save()
            for wake in self._wake.values():
                wake.set()

    async def _tell(self, plan: Plan, conditions: Sequence[Condition]) -> bool:
        now_us, changed = self._now_us(), False
        known = rule.known(self.state.told, plan)
        for condition in conditions:
            told = known.get((condition.kind, condition.subject))
            if rule.due(told, condition, plan, now_us):
                self._told(plan, condition, told, now_us, ours=await self._claimed(plan, condition))
                changed = True
            elif told is not None and told.gone_at:
                told.gone_at, changed = 0, True
        there = {(each.kind, each.subject) for each in conditions}
        for key, told in known.items():
            if key not in there and told.ends and not told.over and told.kind in plan.kinds:
                changed |= self._going(plan, told, now_us)
        return changed

    def _told(self, plan: Plan, condition: Condition, before: Told | None, now_us: int, *, ours: bool) -> None:
        told = Told(
            alert=plan.name,
            kind=condition.kind,
            subject=condition.subject,
            title=condition.title,
            text=condition.text,
            workspace=condition.workspace,
            told_at=now_us,
            ours=ours,
            once=condition.once,
            ends=condition.ends,
        )
        self.state.told = [*(each for each in self.state.told if each is not before), told]
        if ours:
            log.warning("alert %s: %s", plan.name, condition.title)
            self._put(rule.letters(plan, told, over=False, now_us=now_us))

    def _going(self, plan: Plan, told: Told, now_us: int) -> bool:
        """What is well: after a while that is told, once. Whether anything changed."""
        if not told.gone_at:
            told.gone_at = now_us
            return True
        if now_us - told.gone_at < rule.OVER_AFTER_US:
            return False
        told.over = True
        if told.ours:
            self._put(rule.letters(plan, told, over=True, now_us=now_us))
        return True

    async def _claimed(self, plan: Plan, condition: Condition) -> bool:
        """Whether it is this node that tells what all see. Where Redis does not answer, each does for itself."""
        if self._server is None or not condition.shared:
            return True
        key = f"tm:alert:{rule.key_of(plan.name, condition.kind, condition.subject)}"
        for_s = rule.KEPT_US // 1_000_000 if condition.once else max(1, plan.period_us // 1_000_000 - SLACK_S)
        with contextlib.suppress(*ERRORS):
            if await self._server.command("SET", key, self._node, "NX", "EX", for_s):
                return True
            return bool(await self._server.command("GET", key) == self._node.encode())  # it ended before it could tell
        return True

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────

    def _put(self, letters: Sequence[Letter]) -> None:
        self.state.letters += letters
        while len(self.state.letters) > rule.MOST_LETTERS:
            self._give_up(self.state.letters[0], "too many alerts wait")

    async def run(self) -> None:
        """Send until cancelled. Each channel by itself: a mail server that hangs does not hold up the webhook."""
        await asyncio.gather(*map(self._run, CHANNELS))

    async def _run(self, channel: Channel) -> None:
        wake = self._wake[channel]
        while True:
            wake.clear()
            try:
                worked = await self.round(channel)
            except TaximeterError as error:  # upkeep's look says so too
                log.error("%s", error)
                worked = False
            if not worked:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await wake.wait()

    async def round(self, channel: Channel) -> bool:
        """Send what is due, once. False: there was nothing. Raises DataDirError."""
        now_us = self._now_us()
        due = [each for each in self.state.letters if each.channel == channel and each.next_at <= now_us]
        for letter in due:
            await self._attempt(letter)
        return bool(due)

    async def _attempt(self, letter: Letter) -> None:
        letter.attempts += 1
        if letter.channel == "email":
            missing, problem = await self._mailed(letter)
            letter.to = missing
        else:
            problem = "no webhook is configured any more" if self._post is None else await self._post(letter)
        if not problem:
            self.state.letters = [each for each in self.state.letters if each is not letter]
        elif self._now_us() - letter.created_at > rule.GIVEN_UP_US:
            self._give_up(letter, problem)
        else:
            if letter.attempts == 1:
                log.error("alert %s: %r cannot be sent, it is tried again: %s", letter.alert, letter.title, problem)
            letter.problem = problem
            letter.next_at = self._now_us() + int(rule.wait_s(letter.attempts) * 1_000_000)
        await self._save()

    async def _mailed(self, letter: Letter) -> tuple[list[str], str]:
        if self._mail is None:
            return letter.to, "no mail server is configured any more"
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._mail.send, letter)

    def _give_up(self, letter: Letter, problem: str) -> None:
        log.error("alert %s: %r is given up: %s", letter.alert, letter.title, problem)
        self.state.letters = [each for each in self.state.letters if each is not letter]
        self.state.given_up += 1

    async def _save(self) -> None:
        async with self._writing:
            await asyncio.to_thread(self._book.write, encoded(self.state))


def _plan(alert: AlertSettings) -> Plan:
    return Plan(
        name=alert.name,
        kinds=frozenset(alert.on),
        email_to=tuple(alert.email_to),
        webhook=alert.webhook,
        period_us=int(alert.period_s * 1_000_000),
    )
