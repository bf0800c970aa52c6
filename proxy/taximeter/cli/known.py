"""Whether anything is recorded of what was named: a misspelt workspace is not one that used nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from taximeter.cli.backend import Backend
from taximeter.control.answers.responses import UsageAggregateResponse
from taximeter.core.errors import TaximeterError

_decode = msgspec.json.Decoder(UsageAggregateResponse).decode

_SHOWN = 5


class Unknown(TaximeterError):
    """Nothing is recorded of a workspace or track that was named."""


def require(backend: Backend, params: Mapping[str, Sequence[str]]) -> None:
    """Raises Unknown where of a workspace or track in the filters nothing was ever recorded."""
    for name in ("workspace", "track"):
        asked = params.get(name, ())
        if not asked:
            continue
        query = {name: list(asked), "group_by": [name]}
        if name == "track" and "workspace" in params:
            query["workspace"] = list(params["workspace"])
        known = {getattr(part, name) for part in _decode(backend.usage(query)).groups}
        if missing := [each for each in asked if each and each not in known]:
            raise Unknown(f"Nothing is recorded of the {name} {missing[0]!r}.{_near(backend, name, missing[0])}")


def _near(backend: Backend, name: str, asked: str) -> str:
    """What the workspace may have been meant for; of tracks there are too many to look."""
    if name != "workspace":
        return ""
    from difflib import get_close_matches

    known = [str(part.workspace) for part in _decode(backend.usage({"group_by": [name]})).groups]
    near = get_close_matches(asked, known, n=_SHOWN) or sorted(known)[:_SHOWN]
    if not near:
        return " There are no calls yet."
    return f" There {'is' if len(known) == 1 else 'are'} {', '.join(near)}{' …' if len(near) < len(known) else ''}."
