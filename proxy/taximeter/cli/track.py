"""`track`: what one track used, in the words of whoever bills it."""

from __future__ import annotations

import click
import msgspec

from taximeter.cli.backend import Backend
from taximeter.cli.known import require
from taximeter.cli.options import asks_proxy, in_range
from taximeter.cli.show import console, count, echo, money, table
from taximeter.control.answers.responses import TrackResponse
from taximeter.core import views


@click.command()
@click.argument("track_id")
@click.option("--workspace", metavar="NAME", help="Needed where several workspaces have this track.")
@click.option("--wait", type=click.FloatRange(0, 300), default=0.0, help="Seconds to wait until nothing is in flight.")
@click.option(
    "--format",
    "layout",
    type=click.Choice(["table", "json", "langfuse"]),
    default="table",
    help="langfuse: names and figures on alternating lines, as Langfuse shows them.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@asks_proxy
@in_range
def track(
    backend: Backend,
    params: dict[str, list[str]],
    track_id: str,
    workspace: str | None,
    wait: float,
    layout: str,
    as_json: bool,
) -> None:
    """One track, or a range of it: tokens by operation and document, and its cost."""
    params |= {"workspace": [workspace]} if workspace else {}
    raw = backend.track(track_id, {**params, "wait": [str(wait)]} if wait else params)
    found = msgspec.json.decode(raw, type=TrackResponse)
    if not found.usage.requests and not found.in_flight:
        require(backend, {"track": [track_id], **({"workspace": [workspace]} if workspace else {})})
    if as_json or layout == "json":
        echo(raw)
        return
    if layout == "langfuse":
        for line in views.langfuse(found.metrics).splitlines():
            echo(line)
        return
    _show(found)


def _show(answer: TrackResponse) -> None:
    out = console()
    used = answer.token_usage
    out.print(f"Track: {answer.track}   Workspace: {answer.workspace or '—'}   In flight: {answer.in_flight}")
    cost = answer.estimated_cost_usd
    out.print(f"Calls: {count(answer.usage.requests)}   Estimated Cost: {'unknown' if cost is None else money(cost)}")
    rows = [
        ("LLM", used.llm_model or "—", count(used.llm_input_tokens), count(used.llm_output_tokens)),
        ("Embedding", used.embedding_model or "—", count(used.embedding_tokens), ""),
    ]
    out.print()
    out.print(table(["Operation", "Model"], ["Input", "Output"], rows))
    documents = [
        (name, count(each.llm_input_tokens), count(each.llm_output_tokens), count(each.embedding_tokens))
        for name, each in answer.documents.items()
    ]
    if documents:
        out.print()
        out.print(table(["Document"], ["LLM input", "LLM output", "Embedding"], documents))
    if not answer.complete:
        out.print("Calls of this track are still in flight or on their way.", style="yellow")
