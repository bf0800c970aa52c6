"""One attempt to post an alert to the receiver in [webhook], as a CloudEvent.

Past the webhook's own outbox, which is in the history: an alert may be about just that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from taximeter.alerts.rule import Letter
from taximeter.config.settings import WebhookSettings
from taximeter.sinks.webhook import letters
from taximeter.sinks.webhook.sender import Sender


class Poster:
    """By the settings."""

    def __init__(self, sender: Sender, node: str) -> None:
        self._sender = sender
        self._node = node

    @classmethod
    def of(
        cls, settings: WebhookSettings, environ: Mapping[str, str], node: str, now_us: Callable[[], int]
    ) -> Poster | None:
        """None: there is no receiver, or none that takes events."""
        if not settings.url or settings.format != "cloudevents":
            return None
        token, secret = environ.get(settings.token_env, "").strip(), environ.get(settings.secret_env, "")
        return cls(Sender(settings, token=token, secret=secret, now_us=now_us), node)

    async def __call__(self, letter: Letter) -> str:
        """Post it; returns why it was not taken, "" where it was. Raises nothing."""
        told = {"alert": letter.alert, "kind": letter.kind, "subject": letter.subject, "title": letter.title}
        body = letters.event(
            id=letter.id,
            kind="taximeter.alert.over" if letter.over else "taximeter.alert",
            node=self._node,
            subject=letter.workspace or self._node,
            at_us=letter.created_at,
            data={**told, "text": letter.text, "workspace": letter.workspace or None, "over": letter.over},
        )
        posted = letters.Letter(
            key=letter.id, kind="event", workspace=letter.workspace, track=None, body=body,
            created_at=letter.created_at, attempts=letter.attempts, next_at=0, dead=False, problem="",
        )  # fmt: skip
        return (await self._sender.send(posted)).problem

    async def close(self) -> None:
        await self._sender.close()
