"""The most a call may use, from its request alone: what a hard budget holds before it is sent (DESIGN §10). Pure.

An upper bound, not a guess: by the rules in `rules`, each member read by itself, so that an odd one hides no
other. What the request leaves open is taken at the model's own maximum where there is one, and told: it may be refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from taximeter.core.dearest import Most
from taximeter.core.errors import BadRequest
from taximeter.core.record import Operation
from taximeter.flavors.dialects import AUDIO
from taximeter.flavors.media import IMAGES, OCR, SPEECH
from taximeter.flavors.meter import Countable, Demand, Flavor
from taximeter.flavors.usage.counts import encode
from taximeter.gateway.bounds import rules
from taximeter.gateway.bounds.billed_input import Walk
from taximeter.gateway.bounds.models import canonical
from taximeter.gateway.bounds.rules import Bounds, Rule

INPUT_MARGIN_PERCENT = 5
"""Chat templates and the tokenizer's version add a little to what is counted."""
OVERHEAD_TOKENS = 128
"""What a template adds to a call by itself: gpt-oss's system message about 65 tokens, Mistral's `safe_prompt` 60."""
MOST_TOKENS = 2**53
"""Larger figures are held as this: no budget is as large."""

_SOUND = (AUDIO, SPEECH)
_WRAPPERS = frozenset(("extrabody", "google"))
"""Members whose members count as the body's own (LiteLLM; Gemini behind OpenAI's API)."""
_TIERS = {
    "auto": ("", "priority"),
    **dict.fromkeys(("default", "standard", "standard-only", "on-demand"), ("",)),
    **{tier: ("", tier) for tier in ("flex", "batch", "priority", "fast")},
}
"""Service tiers as requests name them -> those in which the call may be billed; any other: in any there is."""


class Bound(msgspec.Struct, kw_only=True):
    """What a call uses at most."""

    input_tokens: int = 0
    output_tokens: int = 0
    search_units: int = 0
    answer_tokens: int = 0
    """Of one answer, as the request says or is taken; of which there are `answers`. 0: nothing in it bounds one."""
    answers: int = 1
    thinking_tokens: int = 0
    """Stated beside it: some providers want an answer's bound to be more than that."""
    uses: int = 0
    """Of tools that the provider runs and charges for."""
    seconds: int = 0
    images: int = 0
    characters: int = 0
    pages: int = 0
    tiers: tuple[str, ...] | None = ("", "priority")
    """Service tiers it may be billed in; None: any that there is."""
    assumed: list[str] = []
    """What the request leaves open, and is taken at its maximum."""
    endless: list[str] = []
    """What has no maximum."""

    @property
    def tokens(self) -> int:
        return min(self.input_tokens + self.output_tokens, MOST_TOKENS)

    def shorter(self, answer_tokens: int) -> Bound:
        """The same call, with at most so many tokens an answer."""
        cut = (self.answer_tokens - answer_tokens) * self.answers
        return msgspec.structs.replace(self, answer_tokens=answer_tokens, output_tokens=self.output_tokens - cut)

    def most(self) -> Most:
        """What is to be priced."""
        return Most(
            input_tokens=min(self.input_tokens, MOST_TOKENS),
            output_tokens=min(self.output_tokens, MOST_TOKENS),
            search_units=self.search_units,
            web_searches=self.uses,
            seconds=self.seconds,
            images=self.images,
            characters=self.characters,
            pages=self.pages,
        )


class Limits(msgspec.Struct, frozen=True):
    """What is taken where a request leaves it open."""

    context_tokens: int
    """The model's own window."""
    max_output_tokens: int
    """An answer's, where the call names none."""


def bound(flavor: Flavor, demand: Demand, text: Countable, counted: int, provider: str, limits: Limits) -> Bound:
    """The bound of a call.

    `counted`: the tokens of `text`, its prompt, as counted here, or its bytes where no tokenizer is known. Raises
    BadRequest where a member that bounds the call is no number.
    """
    if demand.unbilled:
        return Bound()
    walk = Walk(demand, text)
    tokens = counted + max(0, walk.numbers - text.tokens) + walk.unseen_bytes
    tokens += -(-tokens * INPUT_MARGIN_PERCENT // 100) + OVERHEAD_TOKENS + walk.images * rules.IMAGE_TOKENS
    found = Bound(input_tokens=tokens, assumed=[], endless=list(demand.endless))
    asked = _Asked(demand, flavor.dialect, provider)
    found.tiers = _tiers(asked.of(Bounds.TIER))
    found.endless += [rule.member for rule, value in asked.of(Bounds.ENDLESS) if _given(value)]
    kept = [rule.member for rule, value in asked.of(Bounds.KEPT) if _given(value)]
    if demand.kept:
        kept.append("what the provider keeps")
    if flavor in _SOUND:
        _audio(found, demand, walk, limits)
    elif flavor is IMAGES:
        found.images = _answers(asked)
        found.output_tokens = found.images * rules.IMAGE_ANSWER_TOKENS
    elif flavor.operation is Operation.RERANK:
        _searches(found, walk.longest_list)
    elif flavor.operation is not Operation.EMBEDDING and not demand.answerless:
        found.answers = _answers(asked)
        found.output_tokens = _answer(found, asked, limits) * found.answers
    if flavor is OCR:
        found.pages = rules.DOCUMENT_PAGES
    if walk.media and flavor not in _SOUND:
        kept.append("files, audio or video")
    found.assumed += kept
    passes = _uses(found, asked) + 1
    if kept or passes > 1:
        found.input_tokens = max(found.input_tokens, limits.context_tokens) * passes
    return found


class _Asked:
    """What the rules of a dialect find in a request."""

    def __init__(self, demand: Demand, dialect: str, provider: str) -> None:
        self._roots = list(_roots(demand.members))
        self._models = demand.models
        self.unlimited = demand.unlimited
        self._by_name: dict[int, dict[str, list[object]]] = {}
        self._rules = rules_of(dialect, provider)

    def of(self, bounds: Bounds) -> list[tuple[Rule, object]]:
        """(rule, value) of each member that has this meaning and is there, in whatever spelling."""
        return [(rule, value) for rule in self._rules if rule.bounds is bounds for value in self._values(rule)]

    def numbers(self, bounds: Bounds) -> list[float]:
        """Those that are numbers, also where they come as strings. Raises BadRequest on one that is none."""
        values = ((rule.member, value) for rule, value in self.of(bounds))
        return [number for member, value in values if (number := number_of(member, value)) is not None]

    def _values(self, rule: Rule) -> list[object]:
        if rule.member == "model":
            return [name for name in self._models if rule.when in name.lower()]
        nodes: list[object] = list(self._roots)
        for part in rule.member.split("."):
            wanted = canonical(part)
            nodes = [inner for node in nodes for inner in self._members(node).get(wanted, ())]
        return [node for node in nodes if not rule.when or rule.when.encode() in encode(node)]

    def _members(self, node: object) -> dict[str, list[object]]:
        """An object's values by canonical name; made once."""
        if not isinstance(node, dict):
            return {}
        found = self._by_name.get(id(node))
        if found is None:
            found = self._by_name[id(node)] = {}
            for name, inner in node.items():
                found.setdefault(canonical(name), []).append(inner)
        return found


@lru_cache(maxsize=256)
def rules_of(dialect: str, provider: str) -> tuple[Rule, ...]:
    """The rules of a dialect at a provider."""
    return tuple(
        rule
        for rule in rules.RULES
        if rule.dialect in ("*", dialect) and (rule.dialect, rule.member, provider) not in rules.EXCEPTIONS
    )


def _roots(members: dict[str, object]) -> Iterator[dict[str, object]]:
    waiting: list[object] = [members]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += [inner for name, inner in value.items() if canonical(name) in _WRAPPERS]


def number_of(member: str, value: object) -> float | None:
    """A number as lenient decoders take it; None where it is null or "". Raises BadRequest on anything else."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str):
            value = float(value.replace("_", ""))
        if isinstance(value, int | float) and math.isfinite(value):
            return value
    except (ValueError, OverflowError):
        pass
    shown = str(value)[:40]
    raise BadRequest(
        f"A hard budget is about this call, and {member} bounds what it may cost, but {shown!r} is no number.",
        param=member,
    )


def _whole(number: float) -> int:
    return min(math.ceil(number), MOST_TOKENS)


def _answer(found: Bound, asked: _Asked, limits: Limits) -> int:
    """The tokens of one answer: what the request says (0 is what says nothing), with thinking that is not in it."""
    stated = [] if asked.unlimited else asked.numbers(Bounds.ANSWER)
    longest = max((_whole(number) for number in stated if number >= 1), default=0)  # what is cut to 0 says nothing
    if any(number < 0 for number in stated):  # Ollama's -1 and -2: as long as it gets
        found.assumed.append("the answer's length")
        longest = max(longest, limits.context_tokens)
    if not longest:
        found.assumed.append("the answer's length")
        longest = limits.max_output_tokens
    predicted = sum(len(encode(value)) for _, value in asked.of(Bounds.PREDICTED) if _given(value))
    found.answer_tokens, found.thinking_tokens = 0 if asked.unlimited else longest, _thinking(asked)
    return min(longest + found.thinking_tokens + predicted, MOST_TOKENS)


def _thinking(asked: _Asked) -> int:
    """Thinking beside the answer: as stated, or the longest there is where it is only switched on."""
    values = [(rule.member, value) for rule, value in asked.of(Bounds.THINKING)]
    switched = any(value is True or (isinstance(value, str) and value.lower() == "true") for _, value in values)
    numbers = [
        number
        for member, value in values
        if not isinstance(value, bool) and str(value).lower() not in ("true", "false")
        if (number := number_of(member, value)) is not None
    ]
    if any(number < 0 for number in numbers) or (switched and not numbers):
        return rules.THINKING_TOKENS
    return max(map(_whole, numbers), default=0)


def _answers(asked: _Asked) -> int:
    """How many answers there are to be."""
    answers = max([1, *map(_whole, asked.numbers(Bounds.ANSWERS))])
    for _, value in asked.of(Bounds.PROMPTS):
        if isinstance(value, list) and value and not isinstance(value[0], int):
            answers *= len(value)
    return min(answers, MOST_TOKENS)


def _tiers(named: list[tuple[Rule, object]]) -> tuple[str, ...] | None:
    """The tiers that the call may be billed in; None: any. `auto`, or none: as set in the account, maybe priority."""
    tiers: dict[str, None] = {"": None}
    said = [(canonical(rule.member), value) for rule, value in named if value is not None]
    if not any(member == "servicetier" for member, _ in said):
        said.append(("servicetier", "auto"))
    for _, value in said:
        name = value.strip().lower().replace("_", "-") if isinstance(value, str) else ""
        if name not in _TIERS:
            return None
        tiers.update(dict.fromkeys(_TIERS[name]))
    return tuple(tiers)


def _uses(found: Bound, asked: _Asked) -> int:
    """How often the provider may run tools; where the request does not say, that is told as endless."""
    stated = [_whole(number) for number in asked.numbers(Bounds.USES) if number > 0]
    in_all = min(stated) if stated else None
    plain = False
    for _, value in asked.of(Bounds.TOOLS):
        for tool in value if isinstance(value, list) else (value,) if _given(value) else ():
            name = _run_by_provider(tool)
            plain = plain or _is_plain(tool)
            found.input_tokens += 0 if _is_plain(tool) else rules.TOOL_TOKENS
            if name is None:
                continue
            if canonical(name).startswith(rules.OTHER_PRICES) or b"memory_limit" in encode(tool):
                found.endless.append(f"the tool {name[:60]!r}, which is billed by other prices than the model's")
            uses = [number_of("max_uses", inner) for key, inner in _items(tool) if canonical(key) == "maxuses"]
            most = [_whole(number) for number in uses if number is not None and number > 0]
            if in_all is not None:
                found.uses = in_all
            elif most:
                found.uses += max(most)
            else:
                found.endless.append(f"the tool {name[:60]!r} without max_uses or max_tool_calls")
    found.input_tokens += rules.TOOL_TOKENS if plain else 0
    if any(_given(value) for _, value in asked.of(Bounds.STORED)):
        found.uses = max(found.uses, in_all or 0)
        if in_all is None:
            found.endless.append("the tools of a stored prompt without max_tool_calls")
    return found.uses


def _is_plain(tool: object) -> bool:
    """A tool that is nothing but the client's own schema."""
    kinds = [value for key, value in _items(tool) if canonical(key) == "type" and value is not None]
    return all(isinstance(kind, str) and canonical(kind) in ("function", "custom") for kind in kinds)


def _run_by_provider(tool: object) -> str | None:
    """The name of a tool that the provider runs itself; None: the client does."""
    kinds = [value for key, value in _items(tool) if canonical(key) == "type" and value is not None]
    if not isinstance(tool, dict):
        return str(tool)
    if not kinds:
        return next((key for key, value in tool.items() if canonical(key) in rules.SERVER_TOOL_MEMBERS), None)
    for kind in kinds:
        if not isinstance(kind, str) or not canonical(kind).startswith(rules.CLIENT_TOOLS):
            return str(kind)
    return None


def _items(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from value.items()


def _searches(found: Bound, documents: int) -> None:
    """Search units: each 100 documents are one, and each 500 tokens of a document are one more document."""
    documents = max(documents, 1) + found.input_tokens // rules.DOCUMENT_TOKENS
    found.search_units = -(-documents // rules.DOCUMENTS_A_UNIT)


def _audio(found: Bound, demand: Demand, walk: Walk, limits: Limits) -> None:
    """Speech from text is some tokens a byte; a transcript no longer than the shortest encoding of its file allows."""
    if walk.named_only or (walk.media and not walk.file_bytes):
        found.endless.append("audio that is not in the request")
    found.seconds, found.characters = walk.file_s, len(demand.reading)
    heard = min(found.seconds * rules.AUDIO_TOKENS_PER_S, limits.context_tokens)
    found.input_tokens += heard
    found.output_tokens = heard + len(demand.reading) * rules.SPEECH_TOKENS_PER_BYTE


def _given(value: object) -> bool:
    """Whether a member says something; an empty object does (`web_search_options: {}` searches)."""
    return value not in (None, False, "", [])
