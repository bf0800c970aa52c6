"""All sources of prices into one file, once, in the parent: price files, the environment, genai-prices."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec

from taximeter.config import Settings
from taximeter.core.errors import ConfigError
from taximeter.core.prices import Card, Rates
from taximeter.pricebook.catalog import Catalog
from taximeter.pricebook.listed import NOTHING, read_prices

COMPILED_NAME = "prices.json"
"""Name of the compiled file in the data directory."""
DEFAULT_FILE = Path("config/prices.toml")
PACKAGED_FILE = Path(__file__).parent.parent / "prices.toml"
"""What is shipped, inside an installed package."""
CHECKOUT_FILE = Path(__file__).parents[3] / DEFAULT_FILE
"""And in a checkout, from wherever its command is called."""

LLM_INPUT = "LIGHTRAG_LLM_PRICE_PER_1K_INPUT"
LLM_OUTPUT = "LIGHTRAG_LLM_PRICE_PER_1K_OUTPUT"
EMBEDDING = "LIGHTRAG_EMBEDDING_PRICE_PER_1K"


def compile_prices(settings: Settings, path: Path, environ: Mapping[str, str] | None = None) -> Catalog:
    """Write the compiled prices to `path` (replaced in one step) and return them. About half a second, 41 MB.

    Raises ConfigError where prices.toml or one of the per-1K variables cannot be used; `path` is then left as it was.
    """
    environ = os.environ if environ is None else environ
    llm, embedding = env_cards(environ)
    own, shipped = own_file(settings), shipped_file()
    mine = read_prices(own) if own else NOTHING
    ours = read_prices(shipped) if shipped else NOTHING
    from taximeter.pricebook import genai  # 41 MB: only the process that compiles pays for it

    catalog = Catalog(
        compiled_at=time.time_ns() // 1_000,
        source=genai.version(),
        declared=mine.models,
        shipped=[entry for entry in ours.models if entry not in mine.models],  # one's own may have begun as a copy
        regions=[*mine.regions, *ours.regions],
        fees=[*mine.fees, *ours.fees],
        env_llm=llm,
        env_embedding=embedding,
        publishers=list(genai.publishers()),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(msgspec.json.encode(catalog))
    temporary.replace(path)
    return catalog


def own_file(settings: Settings) -> Path | None:
    """The operator's prices: the configured file, else config/prices.toml in the working directory; None: neither."""
    if settings.prices_file:
        return Path(settings.prices_file)
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def shipped_file() -> Path | None:
    """The prices that come with Taximeter; they hold wherever the operator's say nothing."""
    return next((path for path in (PACKAGED_FILE, CHECKOUT_FILE) if path.is_file()), None)


def env_cards(environ: Mapping[str, str]) -> tuple[Card | None, Card | None]:
    """Cards for LLM and embedding calls from the per-1K variables; None where they are not set."""
    tokens_in, tokens_out = _usd_per_1k(environ, LLM_INPUT), _usd_per_1k(environ, LLM_OUTPUT)
    if (tokens_in is None) != (tokens_out is None):
        missing = LLM_INPUT if tokens_in is None else LLM_OUTPUT
        raise ConfigError(f"{missing} is not set, its counterpart is: a call costs by both. Set it (0 is allowed).")
    embedding = _usd_per_1k(environ, EMBEDDING)
    return (
        None if tokens_in is None else Card(ref="env", rates=Rates(input=tokens_in, output=tokens_out)),
        None if embedding is None else Card(ref="env", rates=Rates(input=embedding)),
    )


def _usd_per_1k(environ: Mapping[str, str], name: str) -> int | None:
    """pico-USD per token."""
    text = environ.get(name, "").strip()
    if not text:
        return None
    try:
        pico = Decimal(text) * 10**9
    except InvalidOperation:
        pico = Decimal("NaN")
    if not pico.is_finite() or pico < 0 or pico != int(pico):
        raise ConfigError(f"{name}={text!r}: a number of USD per 1,000 tokens is needed, such as 0.00015.")
    return int(pico)
