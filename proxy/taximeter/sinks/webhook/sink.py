"""The sink `webhook`, and the loop that cuts idle tracks and sends letters. Its books are in the history database."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TypeVar

from taximeter.config import WebhookSettings as Settings
from taximeter.core.record import Record
from taximeter.sinks.batch import Batch
from taximeter.sinks.history.database import Database, HistoryUnavailable
from taximeter.sinks.history.sink import History
from taximeter.sinks.webhook import letters
from taximeter.sinks.webhook.letters import Letter
from taximeter.sinks.webhook.sender import Attempt, Sender
from taximeter.sinks.webhook.store import LetterResult, Standing, Store

log = logging.getLogger("taximeter.webhook")
T = TypeVar("T")

POLL_S = 0.5
"""How often the books are looked at while nobody says that there is something."""
AT_ONCE = 8
"""Requests in flight together."""
LEASE_MARGIN_S = 5.0
"""A letter whose sender died is sent again this long after its attempt had to be over."""


class Webhook:
    """A sink (sinks.sink.Sink). It writes in history's own thread, so the two never wait for each other's locks."""

    name = "webhook"
    durable = True

    def __init__(
        self,
        settings: Settings,
        history: History,
        *,
        node: str,
        token: str,
        secret: str,
        now_us: Callable[[], int],
        dice: Callable[[], float] = random.random,
    ) -> None:
        """`token`, `secret`: what the variables named in the settings hold."""
        self._settings = settings
        self._history = history
        self._now_us = now_us
        self._dice = dice
        self._sender = Sender(settings, token=token, secret=secret, now_us=now_us)
        self._former: list[Sender] = []
        """Of settings before, until what they send has been answered."""
        self._node = node
        self._store: Store | None = None
        self._wake = asyncio.Event()
        self._failures = 0
        """Attempts that failed since one was accepted: the log has the first, then that it is over."""
        self.waiting = self.dead = 0
        """Letters on their way, and given up, as of the last look."""

    async def _books(self) -> Store:
        if self._store is None:
            events = self._settings.format == "cloudevents"

            def make(database: Database) -> Store:
                store = Store(database, self._node, events=events, now_us=self._now_us)
                store.prepare()
                return store

            self._store = await self._history.write(make)
        return self._store

    async def _do(self, act: Callable[[Store], T]) -> T:
        """Act on the books. After a failure the tables are looked for again: the database may be another one now."""
        try:
            books = await self._books()
            return await self._history.write(lambda _: act(books))
        except HistoryUnavailable:
            self._store = None
            raise

    # ── the sink ─────────────────────────────────────────────────────────────────────────────────────────────

    async def cursors(self, journal_ids: Iterable[str]) -> dict[str, int]:
        """Where the webhook is in each journal."""
        return await self._do(lambda books: books.cursors(journal_ids))

    async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Take the records in; what they add up to is sent later."""
        reached = await self._do(lambda books: books.apply(batches))
        if self._settings.format == "cloudevents":
            self._wake.set()
        return reached

    async def retake(self, records: Sequence[Record]) -> None:
        """See sinks.sink.Retaker."""
        await self._do(lambda books: books.retake(records))
        self._wake.set()

    async def close(self) -> None:
        await self._close_former()
        await self._sender.close()

    def become(self, other: Webhook) -> None:
        """Go on with another's settings and secrets; letters already on their way end as they began."""
        self._former.append(self._sender)
        self._settings, self._sender = other._settings, other._sender
        self._store = None  # which knows how letters are laid out
        self._wake.set()

    async def _close_former(self) -> None:
        while self._former:
            await self._former.pop().close()

    # ── beside the sink ──────────────────────────────────────────────────────────────────────────────────────

    async def cut(self, workspace: str, track: str) -> bool:
        """End a track: what it used since its last segment goes out now. False: there was nothing."""
        made = await self._do(lambda books: books.cut(workspace, track))
        self._wake.set()
        return made > 0

    async def letters(self, *, dead: bool | None = None, limit: int = 1_000) -> list[Letter]:
        """See Store.letters."""
        return await self._do(lambda books: books.letters(dead=dead, limit=limit))

    async def resend(self, keys: Sequence[str] | None = None) -> int:
        """See Store.resend."""
        revived = await self._do(lambda books: books.resend(keys))
        self._wake.set()
        return revived

    async def post_event(self, key: str, workspace: str, body: str) -> None:
        """See Store.post_event."""
        await self._do(lambda books: books.post_event(key, workspace, body))
        self._wake.set()

    async def prune(self, before_us: int) -> None:
        """See Store.prune."""
        await self._do(lambda books: books.prune(before_us))

    async def run(self) -> None:
        """Cut and send until cancelled."""
        while True:
            self._wake.clear()
            try:
                worked = await self.round()
            except HistoryUnavailable as error:  # the sink tells of the same trouble; nothing is lost by waiting
                log.debug("%s", error)
                worked = False
            if not worked:
                try:
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def round(self) -> bool:
        """Cut what is idle and send what is due, once. False: there was nothing to do."""
        now_us = self._now_us()
        before_us = now_us - int(self._settings.idle_s * 1_000_000)
        standing: Standing = await self._do(lambda books: books.standing(now_us, before_us))
        self.waiting, self.dead = standing.waiting, standing.dead
        if standing.idle:
            await self._do(lambda books: books.cut_idle(before_us))
        if not (standing.due or standing.idle):
            return False
        size = self._settings.batch_events
        attempts = 1 if size == 1 else 1 + -(-size // AT_ONCE)  # a batch that is refused is sent again, event by event
        lease_us = int((attempts * self._settings.timeout_s + LEASE_MARGIN_S) * 1_000_000)
        claimed = await self._do(lambda books: books.claim(self._now_us(), lease_us, AT_ONCE * size))
        if claimed:
            outcomes = await asyncio.gather(*map(self._deliver, letters.in_batches(claimed, size)))
            await self._do(lambda books: books.finish(chain.from_iterable(outcomes)))
        await self._close_former()
        return True

    async def _deliver(self, batch: Sequence[Letter]) -> list[LetterResult]:
        """One request for all; where that is refused, one each, so that an event nobody takes holds up no other."""
        if len(batch) == 1:
            return [self._told(batch[0], await self._sender.send(batch[0]))]
        sender = self._sender
        attempt = await sender.send(letters.together(batch))
        if not attempt.refused:
            return [self._told(letter, attempt) for letter in batch]
        attempts: list[Attempt] = []
        for start in range(0, len(batch), AT_ONCE):
            attempts += await asyncio.gather(*map(sender.send, batch[start : start + AT_ONCE]))
        return [self._told(letter, attempt) for letter, attempt in zip(batch, attempts, strict=True)]

    def _told(self, letter: Letter, attempt: Attempt) -> LetterResult:
        """What becomes of a letter after an attempt."""
        if not attempt.problem:
            if self._failures:
                log.info("webhook: letters are accepted again, after %d failed attempts", self._failures)
            self._failures = 0
            return LetterResult(key=letter.key)
        self._failures += 1
        dead = letter.attempts >= self._settings.max_attempts
        wait_s = letters.wait_s(letter.attempts, self._dice(), attempt.retry_after_s)
        if dead:
            log.error("webhook: %s is given up after %d attempts: %s", letter.key, letter.attempts, attempt.problem)
        else:
            log.log(
                logging.WARNING if self._failures == 1 else logging.DEBUG,
                "webhook: %s is tried again in %.0f s: %s",
                letter.key,
                wait_s,
                attempt.problem,
            )
        return LetterResult(
            key=letter.key, problem=attempt.problem, next_at=self._now_us() + int(wait_s * 1_000_000), dead=dead
        )
