"""Every setting, declared once: name, default, bounds, meaning. Knows nothing of files or the environment."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from taximeter.config.addresses import masked

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1)]
Rate = Annotated[int, Meta(ge=0, le=2**53)]
Parts = Annotated[int, Meta(ge=2, le=64)]
"""No more than sinks.redis.keys.MAX_PARTS."""
Percent = Annotated[int, Meta(ge=1, le=1_000)]
SecondsOrNone = Annotated[float, Meta(ge=0, le=86_400)]
Usd = str | float
"""An amount of USD, read as it is written; empty: none."""


class Section(Struct, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file. Its repr shows no password and no hash of a secret."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={_shown(name, getattr(self, name))}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({shown})"


def _shown(name: str, value: object) -> str:
    if name.endswith("sha256") and value:
        return "'***'"
    return masked(repr(value))


class RedisSettings(Section):
    """Counters, and what nodes share."""

    url: str = ""
    """redis://, rediss://, redis+cluster://, redis+sentinel://; empty: the embedded Valkey on loopback."""
    embedded_port: Port = 0
    """0: a free one; `taximeter status` and /healthz tell it."""
    split: dict[str, Parts] = field(default_factory=dict)
    """Workspace -> into how many parts its counters are split, each in a slot of its own (`{ acme = 8 }`): for one that
    many nodes count at once on a Cluster. What it used is the sum over them. Not while it has budgets."""


class HistorySettings(Section):
    """The SQL database of records and sums."""

    url: str = ""
    """sqlite:///path or postgresql://…; empty: SQLite in data_dir."""
    retention_days: Count = 400
    """Single records. Sums stay, but those by track, document and end user, which go when their month is over."""
    audit_days: Count = 400
    """Entries of the audit log."""
    owed_days: Count = 31
    """What was promised an answer later (a batch, a background response) and is not told of for so long is written off.
    Providers keep results for less. What tells of it later settles it all the same."""


class EvidenceSettings(Section):
    """What proves that history is what was delivered; see docs/evidence.md. The key signs a root each day."""

    key_file: str = ""
    """A private key as `taximeter evidence keygen` writes it; empty, and no key_env: roots are made, and not signed."""
    key_env: str = ""
    """Environment variable with the private key (PEM) itself."""
    previous_key_file: str = ""
    """The key before, while another takes over: it signs that one's first root too."""
    previous_key_env: str = ""
    """Environment variable with the key before."""


class AuthSettings(Section):
    """Who may call, and who administers."""

    mode: Literal["open", "keys"] = "open"
    """"open": no proxy key is needed; "keys": calls pass only with one."""
    admin_token_sha256: str = ""
    """SHA-256 (hex) of the admin token; empty: none, the control port then serves loopback only."""
    allow_open_relay: bool = False
    """Allow mode "open" on another address than loopback while an upstream has api_key_env."""
    shared_secret_env: str = ""
    """Environment variable with the secret that seals the proxy keys and budgets nodes share through Redis."""
    shared_secret_file: str = ""
    """The same in a file; neither: whoever writes this Redis can add keys and budgets."""
    keys: list[KeySettings] = field(default_factory=list)
    """Proxy keys declared here; others are created at run time."""


class KeySettings(Section):
    """A proxy key declared in the file."""

    id: str
    """Its name in records and lists."""
    sha256: str
    """SHA-256 (hex) of the whole key, `tm-` included."""
    workspace: str
    """The workspace that its calls are counted for."""
    models: list[str] = field(default_factory=list)
    """Allow-list of model patterns; empty: all."""
    expires: str = ""
    """First moment at which it no longer opens anything: a date (UTC) or RFC 3339; empty: never."""


class UpstreamSettings(Section):
    """One provider endpoint."""

    name: str = "openai"
    """What paths (`/u/<name>/v1`), records and `taximeter check` call it."""
    base_url: str = "https://api.openai.com/v1"
    """What a client would use as its base URL: our /v1 is replaced by it. A unix socket, as nginx writes it:
    `unix:/path/to.sock:/v1`."""
    native_url: str = ""
    """For paths that don't start with /v1, and for those of Gemini's, Vertex's and Cohere's own API where base_url is
    their API like OpenAI's; empty: base_url without its last /v1, or without what makes it that API."""
    provider: str = "openai"
    """Whose prices and conventions apply."""
    api_key_env: str = ""
    """Environment variable with a credential, which is sent in the provider's header; empty: none of ours."""
    forward_credentials: bool = False
    """true: the client's own credential goes through (never both). Without a settings file: true."""
    models: list[str] = field(default_factory=lambda: ["*"])
    """Patterns of the models it serves: a call whose path names no upstream goes to the first with a pattern that
    matches its model, else to the first of all."""
    stream_usage: Literal["inject", "off"] = "inject"
    """"inject": streams are asked for their usage, which is taken out of the answer again; "off": requests are sent
    as they came."""
    on_client_left: Literal["cancel", "drain"] = "cancel"
    """What becomes of a stream whose reader has left: "cancel" it, or "drain" it to its end."""
    collect: bool = False
    """true: what was promised an answer later (batches, background responses, videos) and nobody fetches, Taximeter
    fetches itself to know what it used: with the credential in api_key_env, one node of all, at most one a second."""
    workspace: str = ""
    """Workspace of calls that name none; empty: `default`."""
    tokenizer: str = ""
    """Counts where an answer carries no usage; empty: chosen by the name of the model."""
    http2: bool = False
    """Speak HTTP/2 to it, as TLS agrees (HTTP/1.1 where it does not), or without TLS by prior knowledge. Many calls
    share a connection; a call costs more than over HTTP/1.1."""
    proxy_url: str = ""
    """An outbound proxy (`http://`, `https://`) for this upstream; no SOCKS, and none from the environment. A call
    costs more, and with `http2` a goodbye of the upstream (GOAWAY) cuts the answers that run."""
    ca_file: str = ""
    """PEM file of further certificate authorities to trust; empty: the system's."""
    tls_verify: bool = True
    """false: its certificate is not looked at, so whoever stands between can read and change every call. Each worker
    warns at its start, and `taximeter check` does."""
    client_cert_file: str = ""
    """PEM file of the certificate, with its chain, that we show to the upstream (mutual TLS)."""
    client_key_file: str = ""
    """PEM file of its private key; empty: it is in client_cert_file."""
    client_key_password_file: str = ""
    """File whose first line is the password of an encrypted key."""
    connect_timeout_s: Seconds = 10.0
    """Longest wait for a connection, TLS included."""
    first_byte_timeout_s: Seconds = 1_200.0
    """A thinking model is silent for minutes."""
    idle_timeout_s: Seconds = 1_200.0
    """Longest silence between two chunks."""
    max_connections: Count = 1_000
    """Connections of one worker to this upstream at once."""
    keep_alive_s: Seconds = 50.0
    """How long an idle connection is kept for the next call, at most: a shorter `Keep-Alive: timeout` in its answers is
    honoured, and a shorter time is learned where it closes idle connections without a word. Calls are lost to
    connections that it closes in that moment, so set less than its own bound where that is known."""
    dns_lifetime_s: SecondsOrNone = 30.0
    """How long the addresses of its name are taken for right; after that they are used on while they are renewed."""
    tcp_keepalive_s: Seconds = 30.0
    """After so much silence the kernel probes whether the upstream is there, so that no NAT forgets the connection."""
    tcp_user_timeout_s: SecondsOrNone = 180.0
    """A connection whose other end confirms nothing that was sent, or takes nothing of an upload, for so long is
    dropped; 0: as long as the system does (about 15 min)."""


def tls_files(upstream: UpstreamSettings) -> tuple[str, str, str, str]:
    """The files that TLS to an upstream is made of; empty where it has none."""
    return (
        upstream.ca_file,
        upstream.client_cert_file,
        upstream.client_key_file,
        upstream.client_key_password_file,
    )


class TagSettings(Section):
    """Where tags are taken from, besides headers X-Workspace …, paths and keys."""

    baggage: bool = False
    """true: tags are also taken from W3C baggage members `taximeter.workspace` …."""
    body: bool = False
    """true: tags are also taken from the body's `metadata.workspace` … and `user`."""
    headers: dict[str, str] = field(default_factory=dict)
    """Further header names -> workspace | track | document | task | end_user."""


class LimitSettings(Section):
    """What a client may send, and how long it may take."""

    json_body_bytes: Count = 32 * 1024 * 1024
    """JSON request bodies up to this are read whole, to learn model and stream."""
    head_bytes: Count = 64 * 1024
    """Largest head of a request."""
    head_fields: Count = 200
    """Most header fields of a request."""
    head_timeout_s: Seconds = 15.0
    """Longest time in which the head of a request has to come."""
    body_timeout_s: Seconds = 60.0
    """In each span of this length a client sends at least `body_min_bytes` of its request's body, or what is left."""
    body_min_bytes: Count = 16 * 1024
    """See body_timeout_s."""
    held_bytes: Count = 256 * 1024 * 1024
    """Of request bodies that are read whole, held by one worker at once. Not refused for it: those up to 64 KiB."""
    client_idle_s: Seconds = 300.0
    """A client that sends nothing of its request's body, or takes nothing of its answer, for so long is cut off."""
    count_prompt_bytes: Count = 256 * 1024
    """A prompt that may have to be counted is kept up to this; a longer one is counted at once in the pool."""
    keep_alive_s: Seconds = 75.0
    """How long an idle connection of a client stays open."""
    tcp_keepalive_s: Seconds = 30.0
    """After so much silence the kernel probes whether a client is there, so that no NAT forgets the connection."""
    tcp_user_timeout_s: SecondsOrNone = 600.0
    """A client whose end confirms nothing of its answer, or takes nothing of it, for so long is dropped; 0: as long as
    the system does (about 15 min)."""
    websocket_sessions: Annotated[int, Meta(ge=0)] = 0
    """Most WebSockets open in one worker; one more is refused with 429. 0: as many as come."""
    websocket_session_s: SecondsOrNone = 0.0
    """A WebSocket is closed (1001) after so long, when nothing is under way on it; 0: as long as its ends want."""
    shutdown_delay_s: SecondsOrNone = 0.0
    """After SIGTERM calls are taken for so long still, while /readyz says 503, so that a load balancer which asks there
    sends them elsewhere."""
    shutdown_s: Seconds = 30.0
    """How long open streams may go on after that."""


class JournalSettings(Section):
    """The files that every call is written to."""

    fsync: Literal["interval", "always", "never"] = "interval"
    """When lines are forced to stable storage. "always": with each write, so that nothing is lost at a power failure;
    "interval": every fsync_interval_ms; "never": when the system does."""
    fsync_interval_ms: Count = 50
    """See fsync."""
    roll_bytes: Count = 64 * 1024 * 1024
    """A new file is begun after this many bytes."""
    keep_s: Annotated[float, Meta(ge=0)] = 3_600.0
    """How long a file stays after every durable sink has all of it."""
    on_error: Literal["pass", "refuse"] = "pass"
    """While the journal cannot be written: "pass" relays on, "refuse" answers 503 and loses nothing."""
    buffer_records: Count = 10_000
    """How many lines wait in memory while the journal cannot be written."""


class ControlSettings(Section):
    """The control port."""

    open_metrics: bool = False
    """/metrics without a token, also from other addresses than loopback."""
    trust_loopback: bool = True
    """Without an admin token, whoever comes from loopback is the admin: while both ports are on loopback, and until a
    request brings a reverse proxy's header. false: never."""
    allowed_hosts: list[str] = field(default_factory=list)
    """Further Host names accepted on both ports (DNS rebinding guard), and pages of them; "*": any Host and any Origin.
    Loopback and addresses always are."""


class CorsSettings(Section):
    """Pages in browsers that call the data port."""

    allowed_origins: list[str] = field(default_factory=list)
    """Origins whose pages may call: "https://ui.example.org", "https://*.example.org", "null" (pages from files, in
    sandboxed frames), "file://", or "*" for any. To them Taximeter itself answers as CORS wants it, preflights
    included, and upstreams do not see their Origin. To pages of loopback, of the port's own address and of
    control.allowed_hosts, which may call as well, the upstream answers."""


class WebhookSettings(Section):
    """Usage of each track, sent to a billing backend."""

    url: str = ""
    """The billing backend; without a path: /api/v1/webhooks/knowledge/metrics. Empty: no webhook."""
    token_env: str = ""
    """Environment variable with the bearer token."""
    secret_env: str = ""
    """Environment variable with the secret that signs requests."""
    format: Literal["segments", "cloudevents"] = "segments"
    """How a body is laid out: segments of our own, or CloudEvents."""
    batch_events: Annotated[int, Meta(ge=1, le=500)] = 1
    """With format = "cloudevents": so many events at most in one request, as `application/cloudevents-batch+json`; 1:
    each on its own. What waits is sent at once, however few there are."""
    idle_s: Seconds = 300.0
    """A track that was idle for so long is sent."""
    timeout_s: Seconds = 10.0
    """Longest wait for an answer of the backend."""
    max_attempts: Count = 20
    """After so many tries a letter is given up: `taximeter webhook` lists and resends it."""


class BudgetSettings(Section):
    """How budgets decide where something is not known."""

    on_unavailable: Literal["allow", "refuse", "slice"] = "allow"
    """What becomes of calls under a hard budget or a rate while Redis does not answer: they pass uncounted until it is
    back, are refused, or go on within slices that each worker has put aside while it lived, and are then refused."""
    slice_percent: Annotated[float, Meta(gt=0, le=50)] = 1.0
    """With on_unavailable = "slice": how much of a limit each worker that serves it puts aside."""
    on_unpriced: Literal["allow", "refuse"] = "allow"
    """What a hard budget in USD does with a call whose model has no price."""
    on_unbounded: Literal["maximum", "refuse", "allow"] = "maximum"
    """What a hard budget does with a call whose request leaves open what it may cost. `maximum`: it is held at the
    model's own maximum (for an answer: default_max_output_tokens), and refused where there is none, as of a web search
    without a number of uses. `refuse`: it is refused. `allow`: it passes, and may cost more than is held."""
    later_percent: Annotated[float, Meta(ge=0, le=100)] = 0.0
    """What a batch, a video or another job that is billed later holds of its hard budgets, as nothing in the request
    bounds it: so many per cent of the limit of the smallest of each unit, until it is settled. 0: on_unbounded decides.
    """
    clamp: bool = False
    """true: a call that may use more than what is left of its hard budgets has its answer bounded to what is left
    (`max_tokens`, or what its API calls it), and is told so (`x-taximeter-max-tokens`); false: it is refused."""
    clamp_min_output_tokens: Count = 16
    """No answer is bounded to fewer: the call is refused instead. OpenAI's Responses API takes no less than 16."""
    by_header: bool = False
    """Whether a call may cap what its track uses in all (`x-taximeter-budget: 2.50 usd`). Then every call of a track
    asks Redis."""
    by_header_raises: bool = False
    """Whether a later call may raise the cap of its track. Never lowered: a cap is what the first call says."""
    thresholds: list[Percent] = field(default_factory=lambda: [50, 80, 100])
    """Per cent of a budget, soft or hard, at which word is sent of it, once each a period."""
    default_max_output_tokens: Count = 16_384
    """Reserved for the answer of a call that names no bound of its own (max_tokens …)."""
    default_context_tokens: Count = 1_000_000
    """A model's context window where the price list names none: the input of a call that reads what is not in it."""


class BreakerSettings(Section):
    """Stops what uses far more a minute than it usually does: a loop that calls itself, a job started twice."""

    name: str
    """What messages, metrics and `taximeter breaker` call it."""
    floor: Usd
    """It never stops what uses no more than this a minute, in USD or tokens, however unusual it is."""
    scope: Literal["workspace", "key", "track"] = "key"
    """What is measured and stopped, each by itself."""
    workspace: str = "*"
    """Only workspaces that match, `*` for any characters."""
    unit: Literal["usd", "tokens"] = "usd"
    """What is measured. Calls without a known price, or without known use, count nothing."""
    times: Annotated[float, Meta(gt=1, le=1_000_000)] = 10.0
    """It stops what uses more than so many times its usual a minute."""
    ceiling: Usd = ""
    """It stops what uses more than this a minute, also what is too new to have a usual; empty: nothing new is."""
    window_s: Annotated[float, Meta(ge=10, le=3_600)] = 60.0
    """What was used in the last so many seconds is measured."""
    usual_days: Annotated[int, Meta(ge=1, le=90)] = 7
    """What is usual is taken from so many days of history: nine of ten hours in which it used anything used no more."""
    cooldown_s: Annotated[float, Meta(ge=1, le=604_800)] = 600.0
    """For how long it stops; `taximeter breaker reset` ends it earlier."""


class RateSettings(Section):
    """How many requests and tokens a minute, and calls at once, of some calls. Nodes that share a Redis share them.

    Each of what it names is "" (all), a value (those calls only), or "*" (each value by itself).
    """

    name: str
    """What refusals and records call it."""
    workspace: str = "*"
    """"*": each workspace."""
    key: str = ""
    """The id of a proxy key."""
    task: str = ""
    """A task."""
    track: str = ""
    """A track."""
    document: str = ""
    """A document."""
    end_user: str = ""
    """An end user."""
    model: str = ""
    """As requests name it."""
    upstream: str = ""
    """As this configuration names it."""
    requests_per_minute: Rate = 0
    """Calls in any 60 seconds; 0: no such limit."""
    tokens_per_minute: Rate = 0
    """Tokens in any 60 seconds, the most a call may use counting from its beginning until it is known; 0: no such
    limit."""
    concurrent: Rate = 0
    """Calls at once; 0: no such limit."""


class AlertSettings(Section):
    """Who is told of what, without a Prometheus: at most once a period of each thing."""

    name: str
    """What it calls itself in its letters."""
    email_to: list[str] = field(default_factory=list)
    """Addresses; the server stands in [smtp]."""
    webhook: bool = False
    """true: also to the receiver in [webhook], as a CloudEvent (its format has to be "cloudevents")."""
    on: list[Literal["budget", "breaker", "unpriced", "sink", "journal", "deadletter", "reconcile"]] = field(
        default_factory=lambda: ["budget", "breaker", "unpriced", "sink", "journal", "deadletter", "reconcile"]
    )
    """Of what: budgets at budget.thresholds, runaways that a breaker stopped, models without a price, sinks that are
    behind, a journal that cannot be written or read, letters and records given up, a provider's figures that differ."""
    workspace: str = "*"
    """Of budgets and breakers only those of workspaces that match, `*` for any characters."""
    period_s: Annotated[float, Meta(ge=60, le=2_592_000)] = 86_400.0
    """Of each thing one alert in so long, however long it lasts; a budget's once in the budget's own period."""
    sink_behind_s: Seconds = 300.0
    """A sink is behind when it has not got a record for so long."""


class ReconcileSettings(Section):
    """Compares our figures with what a provider says it billed, each day by itself; docs/reconcile.md."""

    name: str
    """What messages, metrics, pages and `taximeter reconcile` call it."""
    kind: Literal["openai", "anthropic", "anthropic_admin", "openrouter", "openrouter_generations", "file"]
    """Whose figures: OpenAI's organization API (or one in its shape, such as another Taximeter's); Anthropic's Usage
    and Cost Analytics API, or the older one of its Admin API; OpenRouter's activity, or the cost of each generation; a
    file of any other provider."""
    provider: str = ""
    """Which of our calls: those of this provider; "*": all; empty: the kind's own (a file has none)."""
    only_upstreams: list[str] = field(default_factory=list)
    """Only calls of these upstreams; empty: of all. Where they are not all of their provider's, records are read."""
    by: Literal["", "upstream", "key", "workspace"] = ""
    """What is told apart beside days and models. "upstream": the provider's keys, each the one that an upstream of ours
    sends, known by `names` or by its last characters; "key": its keys and our proxy keys of the same name; "workspace":
    its projects or workspaces and ours of the same name."""
    names: dict[str, str] = field(default_factory=dict)
    """The provider's id of a key, project or workspace -> the name that it has here."""
    models: dict[str, str] = field(default_factory=dict)
    """The provider's name of a model -> ours, where they differ."""
    base_url: str = ""
    """Where its API is; empty: the kind's own."""
    api_key_env: str = ""
    """Environment variable with a credential that may read usage, which is none that calls are made with."""
    api_key_file: str = ""
    """The same in a file, such as a mounted secret."""
    path: str = ""
    """Of a file: where it is. It is read anew each time."""
    columns: dict[str, str] = field(default_factory=dict)
    """Of a file: day, end, model, key, input_tokens, cached_input_tokens, cache_write_input_tokens, output_tokens,
    requests, cost_usd -> its column, where that is not known by its name."""
    at: str = "06:00"
    """When it is asked, daily, HH:MM UTC."""
    lag_h: Annotated[float, Meta(ge=0, le=720)] = 6.0
    """A day is compared once it has been over for so long: figures settle late."""
    days: Annotated[int, Meta(ge=1, le=31)] = 7
    """So many days are asked for anew each time, and judged together."""
    figures: list[Literal["input_tokens", "cached_input_tokens", "cache_write_input_tokens", "output_tokens",
                          "cost_nusd"]] = field(default_factory=list)  # fmt: skip
    """What is judged; empty: every figure that the provider tells."""
    tolerance_percent: Annotated[float, Meta(ge=0, le=100)] = 0.5
    """How far apart figures may be without being told of."""
    most_generations: Annotated[int, Meta(ge=1, le=10_000)] = 10_000
    """Of openrouter_generations: how many are asked for at a time, at least half a second each; the newest. More would
    not be done in the three hours that a comparison may take."""
    timeout_s: Seconds = 60.0
    """Longest wait for an answer."""


class SmtpSettings(Section):
    """The mail server that alerts go through."""

    host: str = ""
    """Its name; empty: no e-mail is sent."""
    port: Port = 587
    """587 for "starttls", 465 for "tls"."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """"starttls": the connection is secured before anything is said, or nothing is sent; "tls": from the start; "none":
    never, and then no password is sent but on loopback."""
    username: str = ""
    """Empty: without login."""
    password_env: str = ""
    """Environment variable with the password."""
    password_file: str = ""
    """The same in a file, such as a mounted secret."""
    sender: str = ""
    """From whom, `Taximeter <taximeter@example.org>`."""
    ca_file: str = ""
    """PEM file of the certificate authorities to trust; empty: the system's."""
    timeout_s: Seconds = 20.0
    """Longest wait for each answer of the server."""


class PriceCodeSettings(Section):
    """What you charge your customers for documents, in USD; `GET /usage/tracks/{track}?price_codes=1` shows it."""

    rag_embedding: Usd = ""
    """For 1,000 embedding tokens; empty: no price."""
    rag_llm_input: Usd = ""
    """For 1,000 input tokens of LLM calls."""
    rag_llm_output: Usd = ""
    """For 1,000 output tokens of LLM calls."""
    rag_indexation: Usd = ""
    """For a chunk indexed."""


class BillingSettings(Section):
    """Statements: what a workspace cost, and what it is charged (docs/billing.md)."""

    tz: str = "UTC"
    """IANA time zone in which months, and the dates of plans and rates, begin."""
    currency: str = "USD"
    """What statements are in; any but USD needs a [[currency]]."""


class CurrencySettings(Section):
    """A rate of one's own for a currency of statements, from a date on."""

    code: str
    """Three letters, such as EUR."""
    rate: Usd
    """How much of it is one USD."""
    decimals: Annotated[int, Meta(ge=0, le=9)] = 2
    """Places each line of a statement is rounded to, half to even."""
    valid_from: str = ""
    """Date or RFC 3339 time from which it holds; empty: always."""


class StepSettings(Section):
    """What a unit costs beyond a quantity."""

    above: Count
    """What lies above this quantity, within one statement, costs the amount below."""
    usd: Usd
    """For as many units as the price is for."""


class PlanPriceSettings(Section):
    """A price of one's own in a plan; it is charged instead of the markup."""

    code: str
    """input, cached_input, cache_write_input, output, reasoning_output, embedding, rerank, search_unit, audio_hour,
    request, or one of rag_embedding, rag_llm_input, rag_llm_output, rag_indexation."""
    usd: Usd
    """What `per` units cost."""
    per: Annotated[int, Meta(ge=0, le=10**12)] = 0
    """0: 1,000,000 tokens, 1,000 tokens of rag_… codes, 1,000 search units, an hour of audio (in ms), one request or
    chunk."""
    models: list[str] = field(default_factory=lambda: ["*"])
    """Served models it is about; `*` stands for any characters."""
    tasks: list[str] = field(default_factory=lambda: ["*"])
    """Tasks it is about."""
    included: Annotated[int, Meta(ge=0, le=2**53)] = 0
    """So many units of each statement cost nothing."""
    tiers: list[StepSettings] = field(default_factory=list)
    """Graduated: only what lies above a tier's quantity costs its amount."""


class PlanSettings(Section):
    """What one's own customers are charged: a markup on cost, prices of one's own, or both (docs/billing.md)."""

    name: str
    """What statements call it. Several may have one name: each holds from its date on."""
    workspaces: list[str] = field(default_factory=lambda: ["*"])
    """Workspaces it is about; `*` stands for any characters."""
    keys: list[str] = field(default_factory=list)
    """Only calls with these proxy keys, by id; such a plan goes before one without. Empty: all calls."""
    valid_from: str = ""
    """Date or RFC 3339 time from which it holds; empty: always."""
    markup_percent: Usd = ""
    """Added to the cost of what no price below is about: 20 makes 1.2 of it, -10 0.9; empty: that has no charge."""
    price: list[PlanPriceSettings] = field(default_factory=list)


class OtelSettings(Section):
    """OpenTelemetry; needs `pip install 'taximeter[otel]'`."""

    endpoint: str = ""
    """Base URL of an OTLP/HTTP collector (http://collector:4318); empty: nothing is exported."""
    headers_env: str = ""
    """Environment variable with headers, `name=value,…`, such as a vendor's key."""
    traces: bool = True
    """One span a call."""
    metrics: bool = True
    """The GenAI metrics of tokens and durations, in the version OTEL_SEMCONV_STABILITY_OPT_IN says (monitoring.md)."""
    service_name: str = "taximeter"
    """`service.name` of what is exported."""
    interval_s: Seconds = 60.0
    """How often metrics are exported."""
    timeout_s: Seconds = 10.0
    """Longest wait for an answer of the collector."""


class ExportSettings(Section):
    """Files by month in a folder or a bucket, brought to what history has once a day (docs/exports.md)."""

    to: str
    """A folder, or s3://bucket/prefix (needs `pip install 'taximeter[s3]'`; AWS_… in the environment)."""
    formats: list[Literal["csv", "jsonl", "parquet", "focus"]] = field(default_factory=lambda: ["parquet", "focus"])
    """Which files of each month: its records, or the charges of FOCUS."""


class LogSettings(Section):
    """What every process writes to standard error, an entry a line."""

    format: Literal["text", "json"] = "text"
    """"text": `TIME LEVEL PROCESS: MESSAGE`; "json": an object a line (docs/day-2.md). Times are UTC."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Entries of less weight are left out."""
    calls: bool = False
    """One entry a call: who, what, outcome, figures; never a body or a credential. The control process writes them from
    the journal, so calls take no longer."""


class Settings(Section):
    """The whole configuration."""

    listen: str = "127.0.0.1:8000"
    """Data port: what clients use as their base URL."""
    admin_listen: str = "127.0.0.1:8001"
    """Control port: usage, metrics, keys, dashboard."""
    data_dir: str = "./data"
    """Folder of the journal, SQLite history, embedded Valkey and this node's keys."""
    workers: Annotated[int, Meta(ge=1, le=128)] = 1
    """Processes that relay: one for each core that can be spared."""
    cores: Literal["shared", "apart"] = "shared"
    """"apart": where there are more cores than workers, each worker keeps to one of its own, control and the embedded
    Valkey to the others (Linux). For machines that run one node and little else."""
    node: str = ""
    """This node's name; empty: made once and kept in data_dir."""
    usage_headers: bool = False
    """true: small unary answers carry `x-taximeter-input-tokens`, `-output-tokens` and `-cost-usd`."""
    env_file: str = ""
    """File of NAME=value lines, or folder with a file for each variable, over the environment: read again at a reload,
    so that secrets can be exchanged; empty: none."""
    reload_on_change: bool = False
    """true: settings are read again when their file, or one that they name, has changed."""
    prices_file: str = ""
    """Dated prices of one's own, which add to the shipped ones; empty: config/prices.toml where it exists."""
    redis: RedisSettings = field(default_factory=RedisSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    evidence: EvidenceSettings = field(default_factory=EvidenceSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    upstream: list[UpstreamSettings] = field(default_factory=lambda: [UpstreamSettings(forward_credentials=True)])
    tags: TagSettings = field(default_factory=TagSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    journal: JournalSettings = field(default_factory=JournalSettings)
    control: ControlSettings = field(default_factory=ControlSettings)
    cors: CorsSettings = field(default_factory=CorsSettings)
    webhook: WebhookSettings = field(default_factory=WebhookSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    breaker: list[BreakerSettings] = field(default_factory=list)
    rate: list[RateSettings] = field(default_factory=list)
    alert: list[AlertSettings] = field(default_factory=list)
    reconcile: list[ReconcileSettings] = field(default_factory=list)
    export: list[ExportSettings] = field(default_factory=list)
    smtp: SmtpSettings = field(default_factory=SmtpSettings)
    price_codes: PriceCodeSettings = field(default_factory=PriceCodeSettings)
    billing: BillingSettings = field(default_factory=BillingSettings)
    currency: list[CurrencySettings] = field(default_factory=list)
    plan: list[PlanSettings] = field(default_factory=list)
    otel: OtelSettings = field(default_factory=OtelSettings)
    log: LogSettings = field(default_factory=LogSettings)
