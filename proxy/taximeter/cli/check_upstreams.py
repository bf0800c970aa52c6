"""What `taximeter check --connect` asks each upstream: host, port and TLS, then `GET /models`, which is free.

And, without a connection, whether the provider's name is one for which there are prices.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from taximeter.cli.findings import Trouble
from taximeter.config import Settings, UpstreamSettings
from taximeter.config.addresses import masked
from taximeter.config.unix_urls import is_unix, split_unix
from taximeter.core.errors import ConfigError

if TYPE_CHECKING:
    from httpx2 import Response

LONGEST_S = 10.0
RESOLVED_WITHIN_S = 3.0
_ANTHROPIC = {"anthropic-version": "2023-06-01"}


def provider_trouble(upstream: UpstreamSettings, known: set[str]) -> Trouble | None:
    """Whether the name is probably a mistyped one, or one without prices."""
    from taximeter.pricebook.names import provider_name

    if provider_name(upstream.provider) in known or upstream.provider in known:
        return None
    near = difflib.get_close_matches(upstream.provider.lower(), sorted(known), n=1, cutoff=0.75)
    if near:
        return Trouble(
            f"{upstream.provider!r} is no provider that is known here, so its calls have no cost",
            do=f"did you mean {near[0]!r}? Else price its models in prices.toml",
            level="warning",
        )
    return Trouble(
        f"no price is known for {upstream.provider!r}: its calls are counted and have no cost",
        do="price its models in prices.toml, if they have a price",
        level="ok",
    )


def tls_trouble(upstream: UpstreamSettings) -> Trouble | None:
    """Whether nobody looks at its certificate."""
    if upstream.tls_verify:
        return None
    return Trouble(
        "its certificate is not looked at: whoever stands between can read, change and take all of it",
        do="name the authority that signed its certificate, or the certificate itself, in ca_file",
        level="warning",
    )


_endpoint = re.compile(
    r"/(?:chat/completions|completions|responses|messages|embeddings|rerank|api/(?:chat|generate|embed))/?$"
).search


def base_trouble(upstream: UpstreamSettings) -> Trouble | None:
    """Whether its base URL is that of one of its calls: what a client asks for would come behind that."""
    found = _endpoint(upstream.base_url)
    if found is None:
        return None
    return Trouble(
        f"its base_url ends in {found[0]}, which is a call's path, not what clients use as a base URL",
        do=f'base_url = "{masked(upstream.base_url[: found.start()])}"',
        level="warning",
    )


def resolved(host: str) -> list[str]:
    """A host's addresses; none where nobody says so within a few seconds."""
    found: list[str] = []

    def ask() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found.extend(str(place[0]) for *_, place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(RESOLVED_WITHIN_S)
    return list(found)


def known_providers(settings: Settings) -> set[str]:
    """Names for which there are prices, in lists or in one's own file."""
    from taximeter.pricebook.compile import own_file, shipped_file
    from taximeter.pricebook.genai import publishers
    from taximeter.pricebook.listed import read_prices
    from taximeter.pricebook.names import PROVIDERS

    files = [file for file in (own_file(settings), shipped_file()) if file is not None]
    priced: set[str] = set()
    for file in files:
        with contextlib.suppress(ConfigError):  # told where prices are tried
            priced.update(entry.provider for entry in read_prices(file).models)
    return {*PROVIDERS, *PROVIDERS.values(), *priced, *(each.id for each in publishers())}


def upstream_troubles(upstream: UpstreamSettings, environ: Mapping[str, str]) -> Iterator[Trouble]:
    """What is wrong with one upstream, asked now."""
    import httpx2

    from taximeter.gateway.upstream.credentials import header_for
    from taximeter.gateway.upstream.dial import tls_context

    socket_path, url = None, f"{upstream.base_url.rstrip('/')}/models"
    if is_unix(upstream.base_url):
        socket_path, under = split_unix(upstream.base_url)
        url = f"http://localhost{under.rstrip('/')}/models"
    key = environ.get(upstream.api_key_env, "").strip() if upstream.api_key_env else ""
    headers = {"accept": "application/json", **(_ANTHROPIC if upstream.provider == "anthropic" else {})}
    if key:
        name, value = header_for(upstream.provider, httpx2.URL(url).raw_path, key.encode())
        headers[name.decode()] = value.decode()
    timeout_s = min(upstream.connect_timeout_s, LONGEST_S)
    tls = tls_context(upstream, *(["h2"] if upstream.http2 else []), "http/1.1") if url.startswith("https:") else False
    try:
        transport = httpx2.HTTPTransport(
            verify=tls,
            http1=not upstream.http2 or tls is not False,  # without TLS nothing is negotiated
            http2=upstream.http2,
            proxy=upstream.proxy_url or None,
            uds=socket_path,
        )
        with httpx2.Client(timeout=timeout_s, transport=transport, trust_env=False, headers=headers) as client:
            yield from _judged(upstream, client.get(url), key=bool(key))
    except httpx2.TimeoutException:
        yield Trouble(f"{url} did not answer in {timeout_s:g} s", do=_REACH, setting="base_url")
    except (httpx2.HTTPError, OSError) as error:
        said = str(error) or type(error).__name__
        tls_fault = "CERTIFICATE" in said.upper() or "SSL" in said.upper()
        yield Trouble(
            f"{url}: {said}", do=_TRUST if tls_fault else _REACH, setting="ca_file" if tls_fault else "base_url"
        )


_REACH = "see that host and port are right, and that this machine may reach them (DNS, firewall, proxy_url)"
_TRUST = "name the authority that signed its certificate in ca_file, and see that base_url has the certificate's name"


def _judged(upstream: UpstreamSettings, answer: Response, *, key: bool) -> Iterator[Trouble]:
    status = answer.status_code
    if status in (401, 403) and key:
        yield Trouble(
            f"it refuses the credential in {upstream.api_key_env} ({status})",
            do=f"put a key that is good there into {upstream.api_key_env}, and see that `provider` is right, which "
            "says in which header the key is sent",
            setting="api_key_env",
        )
    elif 300 <= status < 400:
        yield Trouble(
            f"it redirects ({status} to {answer.headers.get('location', 'nowhere')}), and redirects are not followed",
            do="name the final address in base_url",
            setting="base_url",
            level="warning",
        )
    elif status >= 500:
        yield Trouble(f"it answers {status} to GET /models", do="ask its operator", setting="base_url", level="warning")
    elif status == 200:
        yield from _models(upstream, answer)
    elif status not in (401, 403):
        yield Trouble(f"it answers; its credential could not be tried, as it has no /models ({status})", level="ok")


def _models(upstream: UpstreamSettings, answer: Response) -> Iterator[Trouble]:
    """Whether any model it lists is one that calls are sent there for."""
    from taximeter.gateway.upstream.endpoint import matcher

    try:
        told = json.loads(answer.content)
        names = [str(each.get("id") or each.get("name")) for each in told.get("data") or told.get("models") or []]
    except (ValueError, AttributeError):
        yield Trouble(
            "its answer to GET /models is no JSON: base_url may be another program's",
            do="see that base_url ends as its clients' does, mostly in /v1",
            setting="base_url",
            level="warning",
        )
        return
    matches = matcher(upstream.models)
    if names and not any(matches(name) or matches(name.removeprefix("models/")) for name in names):
        yield Trouble(
            f"none of the {len(names)} models that it lists matches `models`",
            do=f"it lists {', '.join(names[:3])} …",
            setting="models",
            level="warning",
        )
