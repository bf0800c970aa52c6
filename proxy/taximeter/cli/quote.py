"""`taximeter quote FILE`: what a call would use and cost, and whether it would pass; asked of the data port."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click
import msgspec

from taximeter.cli.options import guarded
from taximeter.cli.proxy import CONNECT_S, Refused, Unreachable, data_url
from taximeter.cli.show import console, count, echo, money, table
from taximeter.core.errors import BadRequest

if TYPE_CHECKING:
    from taximeter.gateway.quote import Quote, QuotedBudget

INDEX = "index"
"""The task of what a document costs (taximeter_rag); --task names another."""
KEY_ENV = "TAXIMETER_KEY"
ANSWER_S = 60.0
"""A long prompt is counted in a second or two."""
TAGS = {"workspace": "X-Workspace", "track": "X-Track-Id", "document": "X-Document-Id", "task": "X-Task"}


@click.command()
@click.argument("file", type=click.File("rb"), required=False)
@click.option(
    "--ingest", "folder", type=click.Path(path_type=Path), help="Estimate bringing this folder into a RAG server."
)
@click.option("--model", default="gpt-4o-mini", show_default=True, help="With --ingest: the LLM.")
@click.option(
    "--embedding-model", default="text-embedding-3-small", show_default=True, help="With --ingest: that of the vectors."
)
@click.option("--provider", help="With --ingest: whose prices the LLM has; default: its upstream's.")
@click.option("--embedding-provider", help="With --ingest: the same of the embedding model.")
@click.option("--chunk-tokens", type=click.IntRange(1), default=1_200, show_default=True, help="With --ingest.")
@click.option("--overlap", type=click.IntRange(0), default=100, show_default=True, help="With --ingest.")
@click.option("--calls-per-chunk", type=click.IntRange(1), default=2, show_default=True, help="With --ingest.")
@click.option("--days", type=click.IntRange(1), default=30, show_default=True, help="With --ingest: of own history.")
@click.option("--url", envvar="TAXIMETER_URL", help="With --ingest: control port with the history.")
@click.option("--api", metavar="PATH", help="Where the call would go, as /v1/embeddings; default: by its members.")
@click.option("--workspace", metavar="NAME", help="Tag of the call.")
@click.option("--track", metavar="NAME", help="Tag of the call.")
@click.option("--document", metavar="NAME", help="Tag of the call.")
@click.option("--task", metavar="NAME", help="Tag of the call.")
@click.option("--upstream", metavar="NAME", help="By name; default: the one whose models match.")
@click.option("--proxy", envvar="TAXIMETER_PROXY", metavar="URL", help="Data port; default: the proxy running here.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings of the proxy.")
@click.option("--json", "as_json", is_flag=True, help="The API's own JSON, for machines.")
@guarded
def quote(
    file: BinaryIO | None,
    folder: Path | None,
    api: str | None,
    upstream: str | None,
    proxy: str | None,
    config_file: Path | None,
    as_json: bool,
    workspace: str | None,
    track: str | None,
    document: str | None,
    task: str | None,
    **ingesting: Any,
) -> None:
    """What the call whose JSON body is in FILE (`-`: standard input) would use and cost, and whether it would pass.

    Nothing is sent to a provider, held or recorded. A proxy key is taken from the variable TAXIMETER_KEY. Exit code 1:
    the call would not pass.

    With --ingest: an estimate of what it takes to bring a folder's texts into a RAG server as LightRAG does.
    """
    from taximeter.gateway.quote import Quote

    if (file is None) == (folder is None):
        raise BadRequest("Name a FILE with a call's body, or --ingest a folder.")
    if file is None:
        _ingest(folder or Path(), config_file, workspace, task or INDEX, as_json, ingesting)
        return
    tags = {"workspace": workspace, "track": track, "document": document, "task": task}
    body = file.read()
    path = (f"/u/{upstream}" if upstream else "") + (api or api_of(body)).rstrip("/")
    headers = {TAGS[name]: value for name, value in tags.items() if value}
    raw = _ask(data_url(proxy, config_file), f"/quote{path}", body, headers)
    told = msgspec.json.decode(raw, type=Quote)
    if as_json:
        echo(raw)
    else:
        _show(told)
    if not told.would_pass:
        raise SystemExit(1)


def _ingest(
    folder: Path, config_file: Path | None, workspace: str | None, task: str, as_json: bool, said: dict[str, Any]
) -> None:
    from taximeter.cli.estimating import Cut
    from taximeter.cli.ingest import Asked, ingest, show
    from taximeter.control.answers import responses

    cut = Cut(said.pop("chunk_tokens"), said.pop("overlap"), said.pop("calls_per_chunk"))
    told = ingest(Asked(folder=folder, cut=cut, task=task, workspace=workspace, config_file=config_file, **said))
    if as_json:
        echo(responses.encode(told))
    else:
        show(told)


def api_of(body: bytes) -> str:
    """The API a request is for, by its members. Raises BadRequest where they do not tell."""
    try:
        members: Any = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The file is no JSON: {error}.") from None
    names: set[str] = set(members) if isinstance(members, dict) else set()
    if "messages" in names:
        return "/v1/messages" if str(members.get("model", "")).startswith("claude") else "/v1/chat/completions"
    if {"query", "documents"} <= names:
        return "/v1/rerank"
    if "input" in names:
        return "/v1/embeddings" if "embed" in str(members.get("model", "")) else "/v1/responses"
    if "prompt" in names:
        return "/v1/completions"
    raise BadRequest("The file does not tell which API it is for: say it with --api, as --api /v1/chat/completions.")


def _ask(url: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    import httpx2

    headers = {**headers, "content-type": "application/json"}
    if key := os.environ.get(KEY_ENV):
        headers["X-Taximeter-Key"] = key
    try:
        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        answer = httpx2.post(url.rstrip("/") + path, content=body, headers=headers, timeout=timeout, trust_env=False)
    except httpx2.HTTPError as error:
        raise Unreachable(
            f"{url} does not answer: {error}. Start the proxy (taximeter serve), or give --proxy."
        ) from None
    if answer.status_code != 200:
        message = _message(answer.content, f"{url}{path} answered {answer.status_code}.")
        raise Refused(f"{message} Set {KEY_ENV}." if answer.status_code == 401 else message, answer.status_code)
    return answer.content


def _message(body: bytes, otherwise: str) -> str:
    try:
        said: Any = msgspec.json.decode(body)
        return str(said["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return otherwise


def _show(told: Quote) -> None:
    whose = " ".join(
        f"{name} {value}" for name in ("workspace", "track", "task", "key_id") if (value := getattr(told, name))
    )
    echo(f"{told.model or 'no model'} ({told.provider}, {told.api}) for {whose}")
    rows = [("Input", _tokens(told.input_tokens, told.input_source.value, told.tokenizer), _cost(told.input_cost_usd))]
    if told.bound is not None:
        most = f"{count(told.bound.input_tokens)} in + {count(told.bound.output_tokens)} out"
        extra = (("search_units", "search units"), ("tool_uses", "uses of tools"), ("seconds", "s of audio"))
        most += "".join(f" + {count(n)} {unit}" for name, unit in extra if (n := getattr(told.bound, name)))
        rows.append(("At most", most, _cost(told.bound_cost_usd)))
    console().print(table(["", "Tokens"], ["Cost"], rows))
    if told.bound is not None and told.bound.assumed:
        echo(f"Left open, and taken at its maximum: {', '.join(told.bound.assumed)}.")
    if told.bound is not None and told.bound.endless:
        echo(f"Has no maximum: {', '.join(told.bound.endless)}.")
    if told.budgets:
        budgets = [_budget(each) for each in told.budgets]
        console().print(table(["Budget", "Workspace", "Period", "Mode"], ["Limit", "Left", "Left after"], budgets))
    for note in told.notes:
        echo(note)
    if told.clamped_output_tokens is not None:
        echo(f"It would pass, its answer bounded to the {count(told.clamped_output_tokens)} tokens that are left.")
    elif told.refusal is None:
        echo("It would pass.")
    else:
        echo(f"It would NOT pass: {told.refusal.status} {told.refusal.code}: {told.refusal.message}")


def _tokens(tokens: int | None, source: str, tokenizer: str | None) -> str:
    return "not known" if tokens is None else f"{count(tokens)} ({source}{f' by {tokenizer}' if tokenizer else ''})"


def _cost(usd: Decimal | None) -> str:
    return "not known" if usd is None else money(usd)


def _budget(each: QuotedBudget) -> tuple[str, ...]:
    budget = each.budget
    figures = (budget.limit, each.left, each.left_after)
    return budget.id, budget.workspace, budget.period, budget.mode, *(_figure(each, budget.unit) for each in figures)


def _figure(value: Decimal | None, unit: str) -> str:
    if value is None:
        return "—"
    sign = "-" if value < 0 else ""
    return sign + (money(abs(value)) if unit == "usd" else f"{count(abs(int(value)))} tokens")
