"""`/chat/completions` and `/completions`: OpenAI's APIs, everybody who speaks them, and platforms that do under paths
of their own (Cloudflare `/ai/run/…`, Databricks and SageMaker `…/invocations`, Snowflake `inference:complete`, Baidu
`wenxinworkshop/chat/…`, Vertex `:rawPredict`, Mistral's agents).

Where the usage stands: `usage` of the body, or of the last chunks (any chunk; the latest figure of each member counts),
`x_groq.usage` (Groq), `choices[].usage` (Moonshot), inside envelopes: `data` (Kinetica), `result` (Cloudflare),
`orchestration_result` and `final_result` (SAP).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec.structs import replace

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.usage import usual
from taximeter.flavors.usage.counts import Fields, Members, count, decode, fields, items
from taximeter.flavors.usage.reader import UsageReader, Verdict
from taximeter.flavors.usage.row import Row

_INPUT = {"prompt_tokens", "input_tokens"}
_WRAPPERS = ("data", "result", "orchestration_result", "final_result")


class ChatReader(UsageReader):
    """Chat completions, whole or streamed."""

    __slots__ = ("_choices", "_searched")

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        # https://openrouter.ai/docs/guides/features/plugins/web-search: `:online` is one search before the answer
        self._searched = (prepared.model or "").endswith(":online") and answer.status < 400
        self._choices: set[object] = set()  # of which a usage each was told, and none of all of them since

    def take(self, found: Members) -> Verdict:
        super().take(found)
        if "base_resp" in found and fields(decode(found["base_resp"])).get("status_code"):
            self.failed = True  # MiniMax tells its errors with status 200
        if "web_search" in found and items(decode(found["web_search"])):
            self._searched = True  # https://docs.z.ai/guides/tools/web-search: what it found, beside the choices
        choices = bytes(found["choices"]) if "choices" in found else None
        if choices is None:
            return Verdict.TAKEN
        if choices in (b"[]", b"null") or not choices.strip(b"[] \t\r\n"):
            self._choices.clear()
            return Verdict.USAGE_ONLY if _has_object(found, "usage") else Verdict.TAKEN
        if _has_object(found, "usage"):
            listed = items(decode(choices))
            if len(listed) == 1:
                self._choices.add(_index(listed[0]))
            else:
                self._choices.clear()
        elif b'"usage"' in choices:
            for choice in items(decode(choices)):
                usage = fields(fields(choice).get("usage"))
                if usage:
                    self._choices.add(_index(choice))
                    self.report(usage, b"")
        return Verdict.TAKEN

    def convert(self) -> Reading:
        reading = (usual.chat_usage(self.raw, self.provider) if self.raw else None) or super().convert()
        if reading.output_tokens is None and not self.usage.keys() & _INPUT and "total_tokens" in self.usage:
            reading.input_tokens = None  # a total alone does not tell (MiniMax): both have generated
        if self._searched and reading.web_search_requests is None and not self.failed:
            reading.web_search_requests = 1
        elif usual.SEARCHES in (self.model or "") and reading.web_search_requests is None and not self.failed:
            reading.web_search_requests = 1 if self.answer.status < 400 else None
        if len(self._choices) > 1:
            reading.output_tokens = reading.reasoning_output_tokens = (
                None  # one choice's (vLLM, continuous_usage_stats)
            )
        return reading

    def output_text(self, event: Fields) -> Iterable[str]:
        for _ in range(2):  # Kinetica wraps its answer twice
            event = next((inner for name in _WRAPPERS if (inner := fields(event.get(name)))), event)
        return super().output_text(event)


class HostedReader(ChatReader):
    """A chat answer whose text may stand in `response` (Cloudflare) or `result` (Baidu)."""

    __slots__ = ()

    def output_text(self, event: Fields) -> Iterable[str]:
        inner = fields(event.get("result")) or event
        text = inner.get("response") or inner.get("result")
        return (text,) if isinstance(text, str) else super().output_text(event)


class CompletionsReader(ChatReader):
    """Text completions, whole or streamed."""

    __slots__ = ()

    def convert(self) -> Reading:
        reading = super().convert()
        total = count(self.usage.get("total_tokens"))
        if reading.output_tokens is None and reading.input_tokens is not None and total is not None:
            reading.output_tokens = max(total - reading.input_tokens, 0)  # absent where nothing was generated
        return reading


def _index(choice: object) -> int | None:
    return count(fields(choice).get("index"))


def _has_object(found: Members, name: str) -> bool:
    return name in found and bytes(found[name])[:1] == b"{"


hosted_model = re.compile(
    rb"(?i)/(?:ai/run|workers-ai|serving-endpoints|endpoints|wenxinworkshop/\w+)/(.+?)(?:/invocations)?/?$"
).search

CHAT = Dialect(
    source="https://platform.openai.com/docs/api-reference/chat",
    api="chat",
    operation=Operation.LLM,
    dialect="chat",
    reader=ChatReader,
    envelopes=("x_groq", *_WRAPPERS),
    watch=("finish_reason",),
    usual=usual.chat,
    injects=True,
    messages="messages",
    text=("choices",),
)
HOSTED = replace(
    CHAT,
    dialect="hosted",
    reader=HostedReader,
    usual=None,
    injects=False,  # they tell the usage unasked, and what they do with a member they do not know is not known
    model_in=hosted_model,
    prompt=("prompt", "inputs", "instances"),
)
COMPLETIONS = replace(
    CHAT,
    source="https://platform.openai.com/docs/api-reference/completions",
    api="completions",
    dialect="completions",
    reader=CompletionsReader,
    usual=None,
    messages="",
    flat=(
        "tokens_evaluated", "tokens_predicted",  # llama.cpp's native /completion
        "num_tokens_prompt_total", "num_tokens_generated",  # Aleph Alpha's /complete
    ),
    watch=(*CHAT.watch, "stop_reason"),
    prompt=("prompt", "suffix", "input", "instruction", "input_prefix", "input_suffix"),
    text=("choices", "completion", "content", "completions.data.text"),  # the last: AI21's J2
)  # fmt: skip
