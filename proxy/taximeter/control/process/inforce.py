"""What follows from the settings in force: made anew when others are taken, and swapped as one.

What does not stand here goes on through a reload: history, Redis, delivery with its cursors, and all that is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from taximeter.alerts.mail import Mailer, password
from taximeter.alerts.post import Poster
from taximeter.budgets.rates import Rates
from taximeter.config.secret import shared_secrets
from taximeter.control.process.sync import Sealing
from taximeter.core.sealed import Seal
from taximeter.evidence.keys import Signer, signers
from taximeter.keys.store import KeyStore
from taximeter.node.audit import AuditLog
from taximeter.node.child import Boot
from taximeter.pricebook import PriceBook
from taximeter.reconcile.pulling import pullers
from taximeter.sinks.calls.sink import Calls
from taximeter.sinks.history.sink import History
from taximeter.sinks.otel import Otel
from taximeter.sinks.sink import Sink

if TYPE_CHECKING:
    from taximeter.sinks.webhook.sink import Webhook


class InForce:
    """Raises TaximeterError, OSError or ValueError where the settings cannot be used; then nothing has happened."""

    def __init__(
        self,
        boot: Boot,
        environ: Mapping[str, str],
        prices: PriceBook,
        *,
        history: History,
        audit: AuditLog,
        now_us: Callable[[], int],
    ) -> None:
        """`environ`: the variables that the settings name."""
        settings = self.settings = boot.settings
        self.boot = boot
        self.environ = environ
        self.prices = prices
        self.keys = KeyStore(Path(settings.data_dir), settings.auth, audit=audit)
        self.rates = Rates(settings.rate)
        secrets = shared_secrets(settings.auth, environ)
        self.sealing = Sealing(Seal(secrets) if secrets else None)
        self.calls = Calls(history.cursors) if settings.log.calls else None
        self.webhook = _webhook(boot, environ, history, now_us)
        self.otel = _otel(boot, environ, history)
        self.signers: Callable[[], list[Signer]] = lambda: signers(settings.evidence, environ)
        self.post = Poster.of(settings.webhook, environ, boot.node, now_us)
        self.pullers = pullers(settings, environ)
        self.mail = None
        if settings.smtp.host:
            self.mail = Mailer(settings.smtp, password(settings.smtp, environ), boot.node)

    @property
    def sinks(self) -> dict[str, Sink]:
        """Those that are there because the settings say so."""
        return {sink.name: sink for sink in (self.otel, self.calls, self.webhook) if sink is not None}

    def go_on_with(self, before: InForce) -> tuple[list[Sink], list[Sink]]:
        """Keep the sinks there were, with the new settings; returns those that come new, and those that go."""
        wanted, there = self.sinks, before.sinks
        if self.webhook is not None and before.webhook is not None:
            before.webhook.become(self.webhook)
            self.webhook = before.webhook
        if self.otel is not None and before.otel is not None:
            before.otel.become(self.otel)
            self.otel = before.otel
        if self.calls is not None and before.calls is not None:
            self.calls = before.calls
        come = [sink for name, sink in wanted.items() if name not in there]
        return come, [sink for name, sink in there.items() if name not in wanted]


def compiled_prices(boot: Boot) -> PriceBook:
    """Those the supervisor has compiled for these settings. Raises ConfigError."""
    return PriceBook.load(Path(boot.prices_file))


def _otel(boot: Boot, environ: Mapping[str, str], history: History) -> Otel | None:
    settings = boot.settings.otel
    return Otel(settings, node=boot.node, start=history.cursors, environ=environ) if settings.endpoint else None


def _webhook(boot: Boot, environ: Mapping[str, str], history: History, now_us: Callable[[], int]) -> Webhook | None:
    settings = boot.settings.webhook
    if not settings.url:
        return None
    from taximeter.sinks.webhook.sink import Webhook

    return Webhook(
        settings,
        history,
        node=boot.node,
        token=environ.get(settings.token_env, "").strip(),
        secret=environ.get(settings.secret_env, ""),
        now_us=now_us,
    )
