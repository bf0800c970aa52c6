"""Every setting, declared once: name, default, bounds, meaning. Knows nothing of files or the environment."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from taximeter.config.addresses import masked

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1)]


class Section(Struct, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file. Its repr shows no password and no hash of a secret."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={_shown(name, getattr(self, name))}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({shown})"


def _shown(name: str, value: object) -> str:
    if name.endswith("sha256") and value:
        return "'***'"
    return masked(repr(value))


class Redis(Section):
    url: str = ""
    """redis://, rediss://, redis+cluster://, redis+sentinel://; empty: the embedded Valkey on loopback."""
    embedded_port: Port = 0
    """0: a free one; `taximeter status` and /healthz tell it."""


class History(Section):
    url: str = ""
    """sqlite:///path or postgresql://…; empty: SQLite in data_dir."""
    retention_days: Count = 400
    """Single records. Sums stay, but those by track, document and end user, which go when their month is over."""


class Auth(Section):
    mode: Literal["open", "keys"] = "open"
    admin_token_sha256: str = ""
    """SHA-256 (hex) of the admin token; empty: none, the control port then serves loopback only."""
    allow_open_relay: bool = False
    """Allow mode "open" on another address than loopback while an upstream has api_key_env."""
    shared_secret_env: str = ""
    """Environment variable with the secret that seals the proxy keys and budgets nodes share through Redis."""
    shared_secret_file: str = ""
    """The same in a file; neither: whoever writes this Redis can add keys and budgets."""
    keys: list[Key] = field(default_factory=list)


class Key(Section):
    """A proxy key declared in the file: [[auth.keys]]."""

    id: str
    sha256: str
    """SHA-256 (hex) of the whole key, `tm-` included."""
    workspace: str
    models: list[str] = field(default_factory=list)
    """Allow-list of model patterns; empty: all."""


class Upstream(Section):
    """One provider endpoint: [[upstream]]."""

    name: str = "openai"
    base_url: str = "https://api.openai.com/v1"
    native_url: str = ""
    provider: str = "openai"
    api_key_env: str = ""
    forward_credentials: bool = False
    models: list[str] = field(default_factory=lambda: ["*"])
    stream_usage: Literal["inject", "off"] = "inject"
    on_client_left: Literal["cancel", "drain"] = "cancel"
    workspace: str = ""
    tokenizer: str = ""
    http2: bool = False
    """Speak to it through the httpx client (HTTP/2-only upstreams, outbound proxies); slower."""
    proxy_url: str = ""
    """An outbound proxy for this upstream; implies the httpx client."""
    ca_file: str = ""
    """PEM file of further certificate authorities to trust; empty: the system's."""
    connect_timeout_s: Seconds = 10.0
    first_byte_timeout_s: Seconds = 1_200.0
    """A thinking model is silent for minutes."""
    idle_timeout_s: Seconds = 1_200.0
    """Longest silence between two chunks."""
    max_connections: Count = 1_000


class TagSources(Section):
    """[tags]"""

    baggage: bool = False
    body: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    """Further header names -> workspace | track | document | task | end_user."""


class Limits(Section):
    json_body_bytes: Count = 32 * 1024 * 1024
    head_bytes: Count = 64 * 1024
    head_fields: Count = 200
    head_timeout_s: Seconds = 15.0
    body_timeout_s: Seconds = 60.0
    """In each span of this length a client sends at least `body_min_bytes` of its request's body, or what is left."""
    body_min_bytes: Count = 16 * 1024
    held_bytes: Count = 256 * 1024 * 1024
    """Of request bodies that are read whole, held by one worker at once. Not refused for it: those up to 64 KiB."""
    count_prompt_bytes: Count = 256 * 1024
    """A prompt that may have to be counted is kept up to this; a longer one is counted at once in the pool."""
    keep_alive_s: Seconds = 75.0
    shutdown_s: Seconds = 30.0
    """How long open streams may go on after SIGTERM."""


class JournalSettings(Section):
    """[journal]"""

    fsync: Literal["interval", "always", "never"] = "interval"
    fsync_interval_ms: Count = 50
    roll_bytes: Count = 64 * 1024 * 1024
    keep_s: Annotated[float, Meta(ge=0)] = 3_600.0
    on_error: Literal["pass", "refuse"] = "pass"
    buffer_records: Count = 10_000
    """How many lines wait in memory while the journal cannot be written."""


class Control(Section):
    open_metrics: bool = False
    """/metrics without a token, also from other addresses than loopback."""
    trust_loopback: bool = True
    """Without an admin token, whoever comes from loopback is the admin: while both ports are on loopback, and until a
    request brings a reverse proxy's header. false: never."""
    allowed_hosts: list[str] = field(default_factory=list)
    """Further Host names accepted on both ports (DNS rebinding guard); loopback and the bound address always are."""


class Webhook(Section):
    url: str = ""
    token_env: str = ""
    secret_env: str = ""
    format: Literal["segments", "cloudevents"] = "segments"
    idle_s: Seconds = 300.0
    timeout_s: Seconds = 10.0
    max_attempts: Count = 20


class BudgetSettings(Section):
    """[budget]"""

    on_unavailable: Literal["allow", "refuse"] = "allow"
    on_unpriced: Literal["allow", "refuse"] = "allow"
    """What a hard budget in USD does with a call whose model has no price."""
    on_unbounded: Literal["maximum", "refuse", "allow"] = "maximum"
    """What a hard budget does with a call whose request leaves open what it may cost. `maximum`: it is held at the
    model's own maximum (for an answer: default_max_output_tokens), and refused where there is none, as of a web search
    without a number of uses. `refuse`: it is refused. `allow`: it passes, and may cost more than is held."""
    default_max_output_tokens: Count = 16_384
    """Reserved for the answer of a call that names no bound of its own (max_tokens …)."""
    default_context_tokens: Count = 1_000_000
    """A model's context window where the price list names none: the input of a call that reads what is not in it."""


class OtelSettings(Section):
    """[otel] (needs `pip install 'taximeter[otel]'`)"""

    endpoint: str = ""
    """Base URL of an OTLP/HTTP collector (http://collector:4318); empty: nothing is exported."""
    headers_env: str = ""
    """Environment variable with headers, `name=value,…`, such as a vendor's key."""
    traces: bool = True
    metrics: bool = True
    service_name: str = "taximeter"
    interval_s: Seconds = 60.0
    """How often metrics are exported."""
    timeout_s: Seconds = 10.0


class Settings(Section):
    """The whole configuration."""

    listen: str = "127.0.0.1:8000"
    admin_listen: str = "127.0.0.1:8001"
    data_dir: str = "./data"
    workers: Annotated[int, Meta(ge=1, le=128)] = 1
    node: str = ""
    """This node's name; empty: made once and kept in data_dir."""
    usage_headers: bool = False
    prices_file: str = ""
    """Dated prices of one's own, which add to the shipped ones; empty: config/prices.toml where it exists."""
    redis: Redis = field(default_factory=Redis)
    history: History = field(default_factory=History)
    auth: Auth = field(default_factory=Auth)
    upstream: list[Upstream] = field(default_factory=lambda: [Upstream(forward_credentials=True)])
    tags: TagSources = field(default_factory=TagSources)
    limits: Limits = field(default_factory=Limits)
    journal: JournalSettings = field(default_factory=JournalSettings)
    control: Control = field(default_factory=Control)
    webhook: Webhook = field(default_factory=Webhook)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    otel: OtelSettings = field(default_factory=OtelSettings)
