"""One attempt to deliver one letter over HTTP; it raises nothing: either it is accepted, or there is a problem."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx2
import msgspec

from taximeter import __version__
from taximeter.config import WebhookSettings as Settings
from taximeter.sinks.webhook.letters import CONTENT_TYPES, Letter, signature

SIGNATURE = "x-taximeter-signature"
REFUSED = (400, 409, 413, 415, 422)
"""Statuses that are about what was sent, not about who sent it or when."""


class Attempt(msgspec.Struct, frozen=True):
    """What became of it."""

    problem: str = ""
    """Empty: accepted (2xx)."""
    retry_after_s: float = 0.0
    """What the receiver asked for."""
    refused: bool = False
    """It was understood and not taken: another attempt at the same is likely to end alike."""


class Sender:
    """Posts letters to webhook.url."""

    def __init__(self, settings: Settings, *, token: str, secret: str, now_us: Callable[[], int]) -> None:
        """`token` and `secret` are the values, not the names; empty: not sent, not signed."""
        self._settings = settings
        self._secret = secret
        self._now_us = now_us
        headers = {"user-agent": f"taximeter/{__version__}"} | ({"authorization": f"Bearer {token}"} if token else {})
        self._client = httpx2.AsyncClient(headers=headers, timeout=settings.timeout_s)

    async def send(self, letter: Letter) -> Attempt:
        """Post a letter once, within webhook.timeout_s."""
        body = letter.body.encode()
        headers = {"content-type": CONTENT_TYPES[letter.kind], "idempotency-key": letter.key}
        if self._secret:
            headers[SIGNATURE] = signature(self._secret, self._now_us() // 1_000_000, body)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await self._client.post(self._settings.url, content=body, headers=headers)
        except TimeoutError:
            return Attempt(f"no answer within {self._settings.timeout_s:g} s")
        except (httpx2.HTTPError, OSError) as error:
            return Attempt(f"{type(error).__name__}: {error}")
        if answer.is_success:
            return Attempt()
        return Attempt(
            f"answered {answer.status_code}",
            _seconds(answer.headers.get("retry-after", "")),
            refused=answer.status_code in REFUSED,
        )

    async def close(self) -> None:
        await self._client.aclose()


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0
