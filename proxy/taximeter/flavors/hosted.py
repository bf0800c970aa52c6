"""Chat under paths of a platform's own: Cloudflare `/ai/run/…`, Databricks and SageMaker `…/invocations`, Snowflake
`inference:complete`, Baidu `wenxinworkshop/chat/…`, Vertex `:rawPredict`, Mistral's agents.

They answer in OpenAI's shape, bare or in an envelope, and tell the usage of a stream without being asked: nothing is
injected, because what they do with a member they do not know is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from taximeter.flavors.chat import Chat, ChatReader
from taximeter.flavors.embeddings import Embeddings
from taximeter.flavors.json_flavor import JsonFlavor, RequestMembers
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage.counts import Fields, fields, items

_model = re.compile(
    rb"(?i)/(?:ai/run|workers-ai|serving-endpoints|endpoints|wenxinworkshop/\w+)/(.+?)(?:/invocations)?/?$"
)


class HostedReader(ChatReader):
    """A chat answer whose text may stand in `response` (Cloudflare) or `result` (Baidu)."""

    __slots__ = ()

    def output_text(self, event: Fields) -> Iterable[str]:
        inner = fields(event.get("result")) or event
        text = inner.get("response") or inner.get("result")
        if isinstance(text, str):
            return (text,)
        return super().output_text(event)


class Hosted(Chat):
    """Flavor of chat on a platform's own path."""

    reader = HostedReader
    usual = JsonFlavor.usual  # its answers are not read as OpenAI's

    def add_to(self, prepared: Prepared, found: RequestMembers, *, inject: bool) -> None:
        """Nothing is asked for."""

    def path_model(self, path: bytes) -> str | None:
        return _named(path) or super().path_model(path)

    def path_streams(self, path: bytes) -> bool:
        return b":streamrawpredict" in path.lower()

    def input(self, body: bytes) -> Countable:
        if items(extract.request(body).get("messages")):
            return extract.chat_input(body)
        return extract.input_of(body, "prompt", "inputs", "instances")


class HostedEmbeddings(Embeddings):
    """Flavor of embeddings on a platform's own path."""

    def add_to(self, prepared: Prepared, found: RequestMembers, *, inject: bool) -> None:
        super().add_to(prepared, found, inject=inject)
        if prepared.embedding_inputs is None:
            given = extract.request(prepared.reading or prepared.body).get("text")
            prepared.embedding_inputs = 1 if isinstance(given, str) else len(items(given)) or None

    def path_model(self, path: bytes) -> str | None:
        return _named(path) or super().path_model(path)

    def input(self, body: bytes) -> Countable:
        return extract.embedding_input(body, "input", "inputs", "text")


def _named(path: bytes) -> str | None:
    found = _model.search(path.partition(b"?")[0])
    return None if found is None else unquote(found.group(1).decode("latin-1"))


HOSTED = Hosted()
HOSTED_EMBEDDINGS = HostedEmbeddings()
