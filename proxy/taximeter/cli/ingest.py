"""`taximeter quote --ingest DIR`: a folder's texts counted, and what bringing them into a RAG server would take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from taximeter.cli.backend import find
from taximeter.cli.estimating import (
    FEWEST_DOCUMENTS,
    Cut,
    Document,
    Estimate,
    Past,
    Span,
    a_call,
    chunks_of,
    dollars,
    embedded,
)  # fmt: skip
from taximeter.cli.proxy import Refused, Unreachable
from taximeter.cli.show import console, count, echo, money, table
from taximeter.config import Settings, load
from taximeter.core.errors import BadRequest, ConfigError
from taximeter.core.record import Operation, Outcome, Record

if TYPE_CHECKING:
    from taximeter.cli.backend import Backend
    from taximeter.pricebook import PriceBook

LONGEST_BYTES = 64 * 1024 * 1024
"""A longer file is no document."""
_DAY_S = 86_400


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    folder: Path
    model: str
    embedding_model: str
    provider: str | None
    embedding_provider: str | None
    cut: Cut
    task: str
    days: int
    workspace: str | None
    config_file: Path | None
    url: str | None


def ingest(asked: Asked) -> Estimate:
    """The estimate. Raises BadRequest, ConfigError."""
    if not asked.folder.is_dir():
        raise BadRequest(f"{asked.folder} is no folder.")
    if asked.cut.overlap_tokens >= asked.cut.chunk_tokens:
        raise BadRequest("The overlap has to be shorter than a chunk.")
    settings = load(asked.config_file)
    skipped: dict[str, str] = {}
    texts = dict(_texts(asked.folder, skipped))
    documents = asyncio.run(_counted(texts, asked, settings))
    past, told = _past(asked)
    return _estimate(asked, settings, documents, skipped, past, told)


def show(told: Estimate) -> None:
    """For people."""
    for name, why in told.skipped.items():
        echo(f"Skipped {name}: {why}")
    echo(f"{count(told.documents)} documents, {count(told.tokens)} tokens, {count(told.chunks)} chunks. An ESTIMATE:")
    rows = [
        ("LLM calls", told.llm_model, *(count(told.llm_calls) for _ in range(3))),
        ("LLM input tokens", "", *map(count, msgspec.structs.astuple(told.llm_input_tokens))),
        ("LLM output tokens", "", *map(count, msgspec.structs.astuple(told.llm_output_tokens))),
        ("LLM cost", "", *_moneys(told.llm_cost_usd)),
        ("Embedding tokens", told.embedding_model, *map(count, msgspec.structs.astuple(told.embedding_tokens))),
        ("Embedding cost", "", *_moneys(told.embedding_cost_usd)),
        ("Cost", "", *_moneys(told.cost_usd)),
    ]
    console().print(table(["", "Model"], ["Low", "Expected", "High"], rows))
    for line in told.rests_on:
        echo(f"- {line}")


def _moneys(known: tuple[Decimal, ...] | None) -> list[str]:
    return ["not known"] * 3 if known is None else [money(each) for each in known]


def _texts(folder: Path, skipped: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(name, text) of each file that is text; what is none is said in `skipped`."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = next((at for at, part in enumerate(parts) if part.startswith(".")), None)
        name = str(Path(*parts[: len(parts) if hidden is None else hidden + 1]))
        try:
            if hidden is not None:
                skipped[name] = "hidden"
            elif path.is_symlink():
                skipped[name] = "a link"
            elif not path.is_dir():
                yield from _text(name, path, skipped)
        except UnicodeDecodeError:
            skipped[name] = "not UTF-8 text: what a parser makes of it is not known here"
        except OSError as error:
            skipped[name] = f"cannot be read: {error.strerror}"


def _text(name: str, path: Path, skipped: dict[str, str]) -> Iterator[tuple[str, str]]:
    if not path.is_file():
        skipped[name] = "no file"
    elif path.stat().st_size > LONGEST_BYTES:
        skipped[name] = f"longer than {LONGEST_BYTES // 2**20} MiB"
    elif b"\0" in (body := path.read_bytes()):
        skipped[name] = "not text: what a parser makes of it is not known here"
    else:
        yield name, body.decode("utf-8-sig")


async def _counted(texts: dict[str, str], asked: Asked, settings: Settings) -> list[Document]:
    from taximeter.flavors.meter import Countable
    from taximeter.gateway.metering.tokenizers import Tokenizers

    tokenizers = Tokenizers()
    try:
        found = []
        for name, text in texts.items():
            counts = [
                (
                    await tokenizers.count(
                        Countable(texts=[text]), model=model, provider="", tokenizer=_tokenizer(settings, model)
                    )
                ).tokens
                for model in (asked.model, asked.embedding_model)
            ]
            found.append(Document(name, *counts))
        return found
    finally:
        tokenizers.close()


def _tokenizer(settings: Settings, model: str) -> str:
    upstream = _upstream(settings, model)
    return upstream.tokenizer if upstream is not None else ""


def _upstream(settings: Settings, model: str) -> Any:
    """The upstream a call of this model would go to."""
    from fnmatch import fnmatchcase

    matching = (each for each in settings.upstream if any(fnmatchcase(model, pattern) for pattern in each.models))
    return next(matching, settings.upstream[0] if settings.upstream else None)


def _past(asked: Asked) -> tuple[list[Past], str]:
    """What documents took here before, and what is to be said of that."""
    try:
        backend, _ = find(asked.url, None, asked.config_file)
    except (Unreachable, ConfigError) as error:
        return [], f"No history of this installation: {error}"
    try:
        llm = _by_document(backend, asked, asked.model, "llm")
        vectors = _by_document(backend, asked, asked.embedding_model, "embedding")
    except (Refused, Unreachable, BadRequest) as error:
        return [], f"The history of this installation cannot be read: {error}"
    finally:
        backend.close()
    found = [
        Past(
            calls=used["requests"],
            input_tokens=used["input_tokens"],
            output_tokens=used["output_tokens"],
            embedding_tokens=vectors.get(name, {}).get("input_tokens", 0),
        )
        for name, used in llm.items()
        if used["requests"] and used["input_tokens"]
    ]
    told = f"{len(found)} documents of task {asked.task!r} and model {asked.model!r} in the last {asked.days} days here"
    return found, told


def _by_document(backend: Backend, asked: Asked, model: str, kind: str) -> dict[str, Any]:
    first = time.strftime("%Y-%m-%d", time.gmtime(time.time() - asked.days * _DAY_S))
    params = {"task": [asked.task], "model": [model], "from": [first], "group_by": ["document"]}
    if asked.workspace:
        params["workspace"] = [asked.workspace]
    raw: Any = msgspec.json.decode(backend.usage(params))
    return {each["document"]: each["usage"][kind] for each in raw.get("groups", []) if each["document"]}


def _estimate(
    asked: Asked, settings: Settings, documents: list[Document], skipped: dict[str, str], past: list[Past], told: str
) -> Estimate:
    from taximeter.control.services.corrections import prices_now

    cut = asked.cut
    chunks = [length for each in documents for length in chunks_of(each.tokens, cut)]
    calls = len(chunks) * cut.calls_a_chunk
    spent, answered = a_call(cut, sum(chunks) // max(1, len(chunks)), past)
    total = sum(each.tokens for each in documents)
    own = sum(chunks) * sum(each.embedding_tokens for each in documents) // max(1, total)
    vectors = embedded(own, spent * calls, past)
    prices = prices_now(settings)
    one = _cost(prices, settings, asked.provider, asked.model, Operation.LLM, spent, answered)
    llm = None if one is None else one * calls
    nothing = Span(0, 0, 0)
    embedding = _cost(
        prices, settings, asked.embedding_provider, asked.embedding_model, Operation.EMBEDDING, vectors, nothing
    )
    known = len(past) >= FEWEST_DOCUMENTS
    return Estimate(
        documents=len(documents),
        skipped=skipped,
        tokens=total,
        chunks=len(chunks),
        llm_model=asked.model,
        llm_calls=calls,
        llm_input_tokens=spent * calls,
        llm_output_tokens=answered * calls,
        llm_cost_usd=None if llm is None else dollars(llm),
        embedding_model=asked.embedding_model,
        embedding_tokens=vectors,
        embedding_cost_usd=None if embedding is None else dollars(embedding),
        cost_usd=None if llm is None or embedding is None else dollars(llm + embedding),
        basis="history" if known else "assumptions",
        rests_on=_rests_on(asked, known, past, told),
    )


def _rests_on(asked: Asked, known: bool, past: list[Past], told: str) -> list[str]:
    cut = asked.cut
    lines = [
        f"Counted: the texts' tokens, cut into chunks of {cut.chunk_tokens} with {cut.overlap_tokens} of overlap.",
        f"Assumed: {cut.calls_a_chunk} LLM calls a chunk (--calls-per-chunk; LightRAG: one, and one a gleaning).",
    ]
    if known:
        lines.append(
            f"From history: tokens a call, and embedding tokens for each input token, of {told}: what a tenth, half "
            "and nine tenths of them did not exceed."
        )
        if sum(1 for each in past if each.embedding_tokens) < FEWEST_DOCUMENTS:
            lines.append(
                f"Assumed: of {asked.embedding_model} 1.2, 2 and 3 times the chunks' tokens; no history of it."
            )
    else:
        lines.append(
            "Assumed: LightRAG 1.5.7's prompts (1,650 tokens around a chunk), answers of 250, 700 and 1,500 tokens, "
            "and 1.2, 2 and 3 times the chunks' tokens embedded, as entities and relations are too."
        )
        lines.append(f"Too little history to go by ({told}; {FEWEST_DOCUMENTS} are needed).")
    lines.append("Not in it: summaries of entities that many chunks name, retries, and what is answered from a cache.")
    return lines


def _cost(
    prices: PriceBook, settings: Settings, said: str | None, model: str, kind: Operation, spent: Span, answered: Span
) -> Span | None:
    """Low, expected, high in nano-USD of calls of one size; None: no price is known. `said`: whose prices."""
    upstream = _upstream(settings, model)
    provider = said or (upstream.provider if upstream is not None else "openai")
    sizes = zip(msgspec.structs.astuple(spent), msgspec.structs.astuple(answered), strict=True)
    costs = [prices.cost(_call(provider, model, kind, *size))[0] for size in sizes]
    return None if any(each is None for each in costs) else Span(*(each or 0 for each in costs))


def _call(provider: str, model: str, kind: Operation, input_tokens: int, output_tokens: int) -> Record:
    """A call of this size, as it would be recorded now."""
    now_us = time.time_ns() // 1_000
    return Record(
        request_id="quote",
        started_at=now_us,
        ended_at=now_us,
        workspace="default",
        upstream="none",
        provider=provider,
        api="chat" if kind is Operation.LLM else "embeddings",
        operation=kind,
        request_model=model,
        input_tokens=input_tokens,
        output_tokens=output_tokens if kind is Operation.LLM else None,
        outcome=Outcome.OK,
    )
