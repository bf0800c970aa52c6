"""docs/benchmarks.md: its tables, its sections, and how a run replaces those it measured and keeps the rest. Pure."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence

from bench.figures import Books, Measured, Spread, Turn, by_title_us, of_proxy, ratios

_STAMP = re.compile(r"^\*(\d{4}-\d\d-\d\d), commit ", re.M)
HEAD = """\
# Benchmarks

What a call costs, written by `make bench`. With `ARGS='--only unary,latency'` these sections are measured anew and the
others stay; `ARGS='--only unary,stream,messages --peers all'` adds other gateways (and installs them, from the package
indexes). `make bench PYTHON=/usr/bin/python3` measures with that interpreter, from an environment of its own. Each
section says when, at which commit, on what and with which interpreter it was measured.

The proxies are pinned to one core with all their processes; the provider and the load generator share another. CPU is
user + system time of a proxy's whole process tree from /proc, read before its turn and again when everything it wrote
down is delivered: worker, control and Valkey are in Taximeter's figure. All proxies of a table run in front of one
provider and take turns, round by round, since the speed of a machine changes within seconds: × nginx is the ratio
within a round. Figures are medians over the rounds, in brackets the least and the greatest.

Every proxy has on what it has of metering. Its answer is compared with the provider's own before the rounds; one that
says something else, or fails more than a hundredth of its calls, is left out. All get the same connections (fewer where
its row says so), each of which calls again once it is answered; a slow proxy has turns up to three times as long.
**counted** is what a proxy's own books hold of the calls that the provider answered during its turns, at whose ends the
load hangs up on the calls under way (those are billed, too); `-`: it keeps none that can be read. **PSS** is the memory
of its processes after the load, **start** the time from its first instruction to its first 200, on one core.

Taximeter has no switch that turns metering off. What comes nearest is a path it knows to be no inference: such a call
is relayed, written down and delivered in the same way, but its answer is not read for usage and nothing is priced. The
row "usage not read" is that, on the same node.
"""


def merged(old: str, measured: Mapping[str, Sequence[str]], order: Sequence[str]) -> str:
    """The page with `measured` (section -> its lines, without the heading) in place of those of `old`.

    Sections stand in `order`, those that are written by hand too; one that is not in it (its measurement is gone) is
    dropped.
    """
    sections = {**sections_of(old), **{name: "\n".join(lines).strip() for name, lines in measured.items()}}
    shown = {name: sections[name] for name in order if sections.get(name)}
    parts = [HEAD.strip(), *stale(shown), *(f"## {name}\n\n{text}" for name, text in shown.items())]
    return "\n\n".join(parts) + "\n"


def stale(sections: Mapping[str, str]) -> list[str]:
    """A paragraph on sections that were measured on an earlier day than the newest: what is built has changed since."""
    days = {name: found[1] for name, text in sections.items() if (found := _STAMP.search(text))}
    newest = max(days.values(), default="")
    older = {day: [name for name in days if days[name] == day] for day in sorted(set(days.values()) - {newest})}
    if not older:
        return []
    named = "; ".join(f"{day}: {', '.join(names)}" for day, names in older.items())
    return [textwrap.fill(f"Older than the newest figures ({newest}), so of what was built then, {named}.", 118)]


def sections_of(text: str) -> dict[str, str]:
    """A page's sections by their `## ` headings, without surrounding blank lines."""
    pieces = re.split(r"^## +(.+?) *$", text, flags=re.M)
    return {name: body.strip() for name, body in zip(pieces[1::2], pieces[2::2], strict=True)}


def table(measured: Measured, floor: str | None) -> list[str]:
    """A scenario's proxies in the order of their first turns; `floor` names the one that others are compared to."""
    turns = measured.turns
    lines = [
        "| proxy | CPU µs a call | × nginx | calls/s | p50 ms | p99 ms "
        "| failed | counted | PSS MB | start s | metering |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    proxies = list(dict.fromkeys(turn.proxy for turn in turns))
    for proxy in proxies:
        mine = of_proxy(turns, proxy)
        times = ratios(turns, proxy, floor) if floor else []
        shown = "1" if proxy == floor else Spread.of(times).shown(2) if times else "-"
        rate, p50_ms, p99_ms, pss = (
            statistics.median(values)
            for values in zip(*((t.load.rate, t.load.p50_ms, t.load.p99_ms, t.pss_bytes) for t in mine), strict=True)
        )
        lines.append(
            f"| {proxy} | {Spread.of(turn.cpu_us for turn in mine).shown()} | {shown} | {rate:,.0f} "
            f"| {p50_ms:.2f} | {p99_ms:.2f} | {sum(turn.load.failed for turn in mine):,} | {counted(mine)} "
            f"| {pss / 2**20:.0f} | {_seconds(measured.start_s.get(proxy))} | {mine[0].metering} |"
        )
    return [*lines, *_splits(measured, proxies), *_left_out(measured.left_out)]


def counted(turns: Sequence[Turn]) -> str:
    """What a proxy's books have of these turns, beside what the provider answered: calls, and tokens if they keep them.

    `-`: it keeps no books, or none that can be read.
    """
    pairs = [(turn.counted, turn.billed) for turn in turns if turn.counted and turn.billed]
    if not pairs:
        return "-"
    nothing = Books(0, 0)
    ours, theirs = sum((one for one, _ in pairs), nothing), sum((other for _, other in pairs), nothing)
    tokens = ""
    if ours.tokens is not None and theirs.tokens:
        missing = theirs.tokens - ours.tokens
        tokens = ", all tokens" if not missing else f", {-missing / theirs.tokens * 100:+.3f} % of the tokens"
    return f"{ours.calls:,} of {theirs.calls:,}{tokens}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _splits(measured: Measured, proxies: Sequence[str]) -> list[str]:
    lines = []
    for proxy in proxies:
        split = {title: us for title, us in by_title_us(of_proxy(measured.turns, proxy)).items() if us >= 0.5}
        if len(split) > 1:
            parts = ", ".join(f"{title} {us:,.0f}" for title, us in split.items())
            idle = measured.idle_cores.get(proxy)
            between = f"; between its turns {idle * 100:.1f} % of a core" if idle is not None else ""
            lines += ["", f"{proxy}, by process: {parts} µs{between}."]
    return lines


def _left_out(why: Sequence[str]) -> list[str]:
    return [line for each in why for line in ("", f"Left out: {each}")]


def stamped(lines: Sequence[str], stamp: str) -> list[str]:
    """Lines of a section with where and when they were measured below them."""
    return [*lines, "", f"*{stamp}*"]
