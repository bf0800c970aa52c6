"""When Redis forgets sums: those of a day, an hour and a track in their time, no others (docs/design.md, section 5)."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from simulation.audit.journals import Said
from simulation.audit.redis import BOOKKEEPING, name
from simulation.audit.sums import DAY_S, HOUR_S
from simulation.audit.uneven import Uneven

if TYPE_CHECKING:
    from simulation.virtual.redis_model import RedisModel

DAY_LIVES_S, HOUR_LIVES_S, TRACK_LIVES_S = 400 * DAY_S, 8 * DAY_S, 30 * DAY_S


def compare(model: RedisModel, records: list[Said], *, went_back: bool) -> None:
    """`went_back`: a key made before that was noticed may not expire. Raises Uneven."""
    used: dict[tuple[str, str], set[int]] = defaultdict(set)
    for said in records:
        if said.get("track") is not None:
            ends_s = (said["ended_at"] // 1_000_000 // HOUR_S + 1) * HOUR_S
            used[name(said["workspace"]), name(said["track"])].add(ends_s + TRACK_LIVES_S)
    for key in model.keys:
        space, _, rest = key.decode().removeprefix("tm:{").partition("}:")
        if not key.startswith(b"tm:{") or space.startswith("tm:") or BOOKKEEPING.match(rest):
            continue
        kind, _, of = rest.partition(":")
        right: set[int | None] = {None}
        if kind in ("day", "hour"):
            begins_s = int(datetime.fromisoformat(of).replace(tzinfo=UTC).timestamp())
            right = {begins_s + (DAY_S + DAY_LIVES_S if kind == "day" else HOUR_S + HOUR_LIVES_S)}
        elif kind == "track":  # which of its records came last, clocks that were stepped do not tell
            right = {*used[space.partition("|")[0], of]}
        if (at_s := model.expires_s(key)) not in right and not (went_back and at_s is None):
            raise Uneven(f"Redis: {key.decode()} goes at {at_s}, and should at {right}")
