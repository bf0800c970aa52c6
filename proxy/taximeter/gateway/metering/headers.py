"""`x-taximeter-…` headers of an answer that was held until its use was known."""

from __future__ import annotations

from taximeter.core.record import Record


def usage_headers(record: Record) -> list[tuple[bytes, bytes]]:
    """What is known of a call's use; the rest is left out."""
    found = []
    if record.input_tokens is not None:
        found.append((b"x-taximeter-input-tokens", str(record.input_tokens).encode()))
    if record.output_tokens is not None:
        found.append((b"x-taximeter-output-tokens", str(record.output_tokens).encode()))
    if record.cost_nusd is not None:
        cost_usd = f"{record.cost_nusd // 10**9}.{record.cost_nusd % 10**9:09d}"
        found.append((b"x-taximeter-cost-usd", cost_usd.encode()))
    return found
