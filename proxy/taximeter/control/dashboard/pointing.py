"""What a client has to be told to come through here: base URL and key, as the settings say. Pure."""

from __future__ import annotations

import msgspec

from taximeter.config import Settings
from taximeter.config.addresses import join, split

SAMPLE_MODEL = "gpt-4o-mini"
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with
"""Addresses to listen on that nobody can be told to call."""


class Pointing(msgspec.Struct, frozen=True, kw_only=True):
    """What to set in a client."""

    base_url: str
    of_workspace: str
    """The base URL that says which workspace pays."""
    key: str
    """What it has to send as its API key, in words."""
    needs_key: bool
    """It has to be one of ours."""
    sample_key: str
    model: str


def pointing(settings: Settings, host: str, workspace: str | None) -> Pointing:
    """`host`: the Host of the page's own request, which names this machine as the reader sees it."""
    address, port = split(settings.listen)
    if address in EVERYWHERE:
        address = _name(host) or "127.0.0.1"
    origin = f"http://{join(address, port)}"
    needs_key = settings.auth.mode == "keys"
    first = settings.upstream[0] if settings.upstream else None
    if needs_key:
        key, sample = "a proxy key (tm-…), which says whose the call is", "tm-…"
    elif first is not None and first.forward_credentials:
        key, sample = f"the one of {first.name}, as before: it is passed on", "sk-…"
    else:
        key, sample = "any text: the provider's key is set here", "anything"
    models = [] if first is None else [name for name in first.models if "*" not in name]
    return Pointing(
        base_url=f"{origin}/v1",
        of_workspace=f"{origin}/w/{workspace or 'WORKSPACE'}/v1",
        key=key,
        needs_key=needs_key,
        sample_key=sample,
        model=models[0] if models else SAMPLE_MODEL,
    )


def _name(host: str) -> str:
    """The name or address in a Host."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
