"""What every API flavor offers: how to prepare a request, how to meter its answer.

A flavor is stateless and shared; a `Meter` lives for one answer. Neither raises on anything a client or
upstream sends: what cannot be read is unknown, and the bytes are relayed all the same.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.asked import Asked

HELD_LINE_BYTES = 64 * 1024
"""Most bytes of an incomplete SSE line held back while an injected usage event has to be found (DESIGN §2.3)."""


class Form(Protocol):
    """A form that streams through (see `taximeter.gateway.forms`)."""

    @property
    def model(self) -> str | None: ...

    def feed(self, piece: bytes) -> None: ...

    def as_json(self) -> bytes: ...


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for, read by itself and whole: for hard budgets and allow-lists, which must not be fooled."""

    members: dict[str, object] = {}
    """The body's members, decoded; of a form its fields, of a file {"bytes": its size}."""
    reading: bytes = b"{}"
    """The same as JSON."""
    models: tuple[str, ...] = ()
    """Every model named, in body, path, query or head."""
    form: bool = False
    unbilled: bool = False
    """It uses nothing (an upload, a token count); its body is not read."""
    kept: bool = False
    """The path names something the provider keeps (a conversation), which is read again and billed."""
    answerless: bool = False
    """Its input is judged, no answer is generated."""
    long_context: bool = True
    """It may ask for a longer context window than the model's usual one."""
    writes_cache: bool = True
    """What it says may be written into a cache, at a price of its own."""
    unlimited: bool = False
    """No member that the API documents bounds its answer."""
    endless: tuple[str, ...] = ()
    """What the path starts that has no bound: a batch, an agent's run."""


class Prepared(msgspec.Struct, kw_only=True):
    """What a flavor learned from a request body, and the body to send."""

    body: bytes
    """Byte-identical to what came, but for what was spliced in: `stream_options.include_usage`, and the bound of an
    answer that was clamped to what is left of a budget."""
    model: str | None = None
    stream: bool = False
    injected: bool = False
    """We asked for the usage event; the meter takes it out of the answer again."""
    embedding_inputs: int | None = None
    rerank_documents: int | None = None
    search_units: int | None = None
    """What its documents are billed as, where the provider bills by them and its answers do not tell."""
    asked: Asked | None = None
    metadata: dict[str, object] = {}
    """The body's `metadata` object and `user` (as `end_user`), for `tags.body`."""
    reading: bytes | None = None
    """The body as plain JSON, where it is not that already (see `lenient`): what is read in place of `body`."""
    uses_nothing: bool = False
    """What its path may use, it does not: it only writes something down."""
    form: Form | None = None
    """Tells the model of a form that is still coming."""
    demand: Demand | None = None
    """All that the request may cost or call, where a hard budget or an allow-list is about it."""


class Countable(msgspec.Struct, kw_only=True):
    """Text to be tokenized locally, when no usage was reported."""

    texts: list[str] = []
    tokens: int = 0
    """Tokens known without a tokenizer: token-array inputs, overhead per message by published rule."""
    truncated: bool = False
    """Not all of it was kept or could be read (bounds, images, a cut body): a count of it is an estimate from below.
    With no texts and no tokens beside it, nothing is known at all: that is null, not 0."""


class Answer(msgspec.Struct, kw_only=True):
    """The head of an upstream's answer."""

    status: int
    content_type: bytes = b""
    headers: list[tuple[bytes, bytes]] = []
    """Names in lower case."""
    head: dict[bytes, bytes] | None = None
    """The same by name, where it is at hand."""

    def value_of(self, wanted: bytes) -> bytes:
        """The value of a header by its lower-case name, b"" where there is none."""
        for name, value in self.headers:
            if name == wanted:
                return value
        return b""


class Meter(Protocol):
    """Meters one answer as its bytes pass. Bounded memory; never raises."""

    terminal: bool
    """True from the chunk on that holds the answer's terminal event ([DONE], message_stop, response.completed …)."""

    def feed(self, chunk: bytes) -> bytes:
        """Meter a chunk; returns what may go to the client now (the very same object where nothing is taken out)."""

    def finish(self) -> bytes:
        """The answer has ended, for whatever reason. Returns bytes still held for the client (mostly b"")."""

    def reading(self) -> Reading:
        """The usage as far as known now; may be called more than once."""

    def output(self) -> Countable:
        """The output's text as far as kept, for local counting; call after finish()."""

    def progress_tokens(self) -> int | None:
        """A cheap lower bound of output tokens so far, for a long stream's tick; None where nothing is known."""


class Flavor(Protocol):
    """One API's dialect."""

    @property
    def api(self) -> str:
        """By which name it is recorded."""

    @property
    def dialect(self) -> str:
        """By which name the rules for hard budgets know its requests (`gateway/bounds/rules.py`)."""

    @property
    def operation(self) -> Operation:
        """What kind of call it is."""

    def prepare(self, body: bytes, path: bytes, *, inject: bool) -> Prepared:
        """Read a JSON request body (b"" where there was none or it was not read).

        `path` is the provider-side path (some APIs carry the model there). With `inject`, a streamed request
        that lacks `stream_options.include_usage` gets it, spliced into the bytes.
        """

    def meter(self, prepared: Prepared, answer: Answer, provider: str) -> Meter:
        """A meter for one answer. `provider` selects conventions where providers differ on the same API."""

    def whole(self, prepared: Prepared, answer: Answer, provider: str, body: bytes) -> Reading | None:
        """A meter's reading of a whole answer of the usual kind, at a fraction of the cost; None: use a meter."""

    def path_model(self, path: bytes) -> str | None:
        """The model where the path carries it."""

    def input(self, body: bytes) -> Countable:
        """The request's text for local counting, from the body as the client sent it."""
