"""TLS to an upstream, as its settings say: who is trusted, who we are. Tried by `check`, used by workers."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

from taximeter.config.settings import UpstreamSettings


def context_of(upstream: UpstreamSettings) -> ssl.SSLContext:
    """Raises OSError (so ssl.SSLError), ValueError where `problems` has something to say."""
    context = ssl.create_default_context()
    if upstream.ca_file:
        context.load_verify_locations(upstream.ca_file)
    if not upstream.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if upstream.client_cert_file:
        password = _password(upstream)  # without one OpenSSL would ask at the terminal
        context.load_cert_chain(upstream.client_cert_file, upstream.client_key_file or None, lambda: password)
    return context


def problems(upstream: UpstreamSettings) -> Iterable[tuple[str, str]]:
    """(setting, what is wrong with it): files that are not there, cannot be read, or do not belong together."""
    named = ("ca_file", "client_cert_file", "client_key_file", "client_key_password_file")
    missing = [key for key in named if getattr(upstream, key) and not Path(getattr(upstream, key)).is_file()]
    yield from ((key, "there is no such file") for key in missing)
    for key in named[2:]:
        if getattr(upstream, key) and not upstream.client_cert_file:
            yield key, "it says nothing without client_cert_file"
    if not missing:
        yield from _unusable(upstream)


def _unusable(upstream: UpstreamSettings) -> Iterable[tuple[str, str]]:
    if upstream.ca_file:
        try:
            ssl.create_default_context(cafile=upstream.ca_file)
        except OSError as error:
            yield "ca_file", f"no certificate (PEM) can be read from it: {_why(error)}"
            return
    if upstream.client_cert_file:
        try:
            context_of(upstream)
        except (OSError, ValueError) as error:
            where = "client_key_file" if upstream.client_key_file else "client_cert_file"
            if "KEY_VALUES_MISMATCH" in str(error):
                yield where, "this key does not belong to that certificate"
            elif upstream.client_key_password_file:
                yield where, f"certificate and key cannot be read with that password ({_why(error)})"
            else:
                yield (
                    where,
                    (
                        f"certificate and key cannot be read from PEM ({_why(error)}); an encrypted key needs "
                        "client_key_password_file"
                    ),
                )


def _password(upstream: UpstreamSettings) -> str:
    """The first line of the file with it."""
    if not upstream.client_key_password_file:
        return ""
    lines = Path(upstream.client_key_password_file).read_text(encoding="utf-8").splitlines()
    return lines[0] if lines else ""


def _why(error: Exception) -> str:
    return (getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)).replace("\n", " ")
