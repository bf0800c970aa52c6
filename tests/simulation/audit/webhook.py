"""The webhook's receiver has everything once: each record as an event, or each track's use in its segments."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from simulation.audit.journals import Said
from simulation.audit.sums import adds, model, of
from simulation.audit.uneven import NotYet, Uneven

if TYPE_CHECKING:
    from simulation.actors.client import Plan
    from simulation.simulation import Simulation

METRICS = {
    "prompt_tokens": "llm_input_tokens",
    "completion_tokens": "llm_output_tokens",
    "total_tokens": "total_tokens",
    "cached_tokens": "llm_cached_input_tokens",
    "input_cached_tokens": "llm_cached_input_tokens",
    "output_reasoning_tokens": "llm_reasoning_output_tokens",
    "input_audio_tokens": "audio_input_tokens",
    "output_audio_tokens": "audio_output_tokens",
    "output_accepted_prediction_tokens": "accepted_prediction_tokens",
    "output_rejected_prediction_tokens": "rejected_prediction_tokens",
    "call_count": "attempts",
}
"""Of a segment, and the sums they are."""

Figure = tuple[str, str, str]
"""Workspace, track, metric."""


def compare(simulation: Simulation, records: list[Said], gone: set[str]) -> None:
    """Raises Uneven; NotYet for what may still come. `gone`: calls of which a power loss took a line, which it may have
    heard of before."""
    settings = simulation.nodes[0].settings.webhook
    if not settings.url:
        return
    receiver = simulation.receiver
    bodies: dict[str, dict[str, Any]] = {key: json.loads(letter.body) for key, letter in receiver.taken.items()}
    unlike = [key for key in receiver.unlike if bodies[key].get("type") != "taximeter.budget.threshold"]
    if unlike:
        raise Uneven(f"letters came again with another body: {unlike[:5]}")
    if settings.format == "cloudevents":
        _events(bodies, records, gone)
    else:
        _segments(bodies, records, {call.plan for call in simulation.callers if call.plan.marker in gone})


def _events(bodies: dict[str, dict[str, Any]], records: list[Said], gone: set[str]) -> None:
    usage = {key: said for key, said in bodies.items() if said["type"].startswith("taximeter.usage.")}
    usage = {key: said for key, said in usage.items() if said["data"].get("document") not in gone}
    records = [said for said in records if said.get("document") not in gone]
    ours = {said["event_id"]: said for said in records if of(said, "kind") != "told"}
    if strangers := sorted(usage.keys() - ours.keys()):
        raise Uneven(f"events of no record: {strangers[:5]}")
    for key, said in usage.items():
        data = said["data"]
        if changed := [name for name, value in ours[key].items() if data.get(name) != value]:
            raise Uneven(f"the event {key} says another {changed} than its record: {data}, {ours[key]}")
    if missing := sorted(ours.keys() - usage.keys()):
        raise NotYet(f"{len(missing)} records never came to the webhook's receiver: {missing[:5]}")


def _segments(bodies: dict[str, dict[str, Any]], records: list[Said], gone: set[Plan]) -> None:
    unsure = {(plan.workspace, plan.track) for plan in gone}  # which of a track's calls are in a segment nobody can see
    came: Counter[Figure] = Counter()
    for said in bodies.values():
        for metric in METRICS if (said["workspace"], said["track_id"]) not in unsure else ():
            came[said["workspace"], said["track_id"], metric] += said["metrics"][metric]
    due: Counter[Figure] = Counter()
    models: set[tuple[str, str, str | None]] = set()
    for said in records:
        if not said.get("track") or of(said, "operation") != "llm" or of(said, "kind") != "usage":
            continue
        models.add((said["workspace"], said["track"], model(said)))
        if (said["workspace"], said["track"]) not in unsure:
            sums = adds(said)
            for metric, summed in METRICS.items():
                due[said["workspace"], said["track"], metric] += sums[summed]
            due[said["workspace"], said["track"], "call_count"] -= sums["errors"]
    if more := came - due:
        raise Uneven(f"the webhook's receiver got more than was used: {more}")
    for said in bodies.values():
        figures = said["metrics"]
        names = said["workspace"], said["track_id"], figures["model"]
        if (
            names[:2] not in unsure
            and names not in models
            and (figures["model"] is not None or figures["total_tokens"])
        ):
            raise Uneven(f"a segment names a model that its track did not use: {said}")
    if less := due - came:
        raise NotYet(f"the webhook's receiver still lacks {less}")
