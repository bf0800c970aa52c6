"""What one worker meters all its calls with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from taximeter.config import Settings
    from taximeter.core.record import Record
    from taximeter.gateway.metering.counting import Counting
    from taximeter.journal import Journal


class Prices(Protocol):
    """What a call costs (see `taximeter.pricebook`)."""

    def cost(self, record: Record) -> tuple[int | None, str | None]:
        """(cost in nano-USD, price_ref), or (None, None) where there is no price."""

    def why(self, record: Record) -> str | None:
        """Why a call that may have been billed has no cost (`taximeter.core.prices.Why`)."""


class Metering:
    """Passed to every call."""

    def __init__(
        self,
        settings: Settings,
        *,
        journal: Journal,
        prices: Prices,
        tokenizers: Counting,
    ) -> None:
        self.journal = journal
        self.prices = prices
        self.tokenizers = tokenizers
        self.durable = settings.journal.fsync == "always"
        """Each line has to be on stable storage before what it speaks of goes on."""
        self.usage_headers = settings.usage_headers
        """Answers that can be held until they are whole tell in their head what they used."""
        self.refuses = settings.journal.on_error == "refuse"
        self.count_prompt_bytes = settings.limits.count_prompt_bytes
        """A prompt up to this is kept while it may have to be counted."""
        self.silent: set[tuple[str, str]] = set()
        """(upstream, api) whose last whole answer carried no usage: their prompts will have to be counted."""
