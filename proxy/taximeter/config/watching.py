"""What settings of breakers, alerts and the mail server mean together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.utils import parseaddr
from pathlib import Path

from taximeter.breaker.rule import written
from taximeter.config.addresses import is_loopback
from taximeter.config.settings import Settings, SmtpSettings
from taximeter.core import tags

_TAG = "it must be 1-128 characters of letters, digits and . _ : @ -"
_is_variable = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
_is_address = re.compile(r"[^\s@<>,;:\"\\()\[\]]+@[A-Za-z0-9.-]+").fullmatch


def breaker_problems(settings: Settings) -> Iterable[tuple[str, str]]:
    """(path, what is wrong with the value there) of `[[breaker]]`."""
    names: set[str] = set()
    for number, breaker in enumerate(settings.breaker):
        path = f"breaker[{number}]"
        if not tags.is_valid(breaker.name):
            yield f"{path}.name", _TAG
        if breaker.name in names:
            yield f"{path}.name", "two breakers have this name"
        names.add(breaker.name)
        amounts: dict[str, int | None] = {}
        for name in ("floor", "ceiling"):
            try:
                amounts[name] = written(getattr(breaker, name), breaker.unit)
            except ValueError as error:
                yield f"{path}.{name}", str(error)
        if amounts.get("floor", 1) is None:
            yield f"{path}.floor", "give what never stops anything, in USD or tokens a minute"
        if (amounts.get("ceiling") or 2**60) < (amounts.get("floor") or 0):
            yield f"{path}.ceiling", "it is less than the floor"


def alert_problems(settings: Settings) -> Iterable[tuple[str, str]]:
    """The same of `[[alert]]` and `[smtp]`."""
    names: set[str] = set()
    for number, alert in enumerate(settings.alert):
        path = f"alert[{number}]"
        if not tags.is_valid(alert.name):
            yield f"{path}.name", _TAG
        if alert.name in names:
            yield f"{path}.name", "two alerts have this name"
        names.add(alert.name)
        if not alert.email_to and not alert.webhook:
            yield f"{path}.email_to", "give addresses, or webhook = true: nobody would be told"
        for at, address in enumerate(alert.email_to):
            if not _is_address(address):
                yield f"{path}.email_to[{at}]", "it must be an e-mail address such as ops@example.org"
        if alert.email_to and not settings.smtp.host:
            yield "smtp.host", f"alert {alert.name!r} sends e-mail: name the mail server"
        if alert.webhook and not (settings.webhook.url and settings.webhook.format == "cloudevents"):
            yield f"{path}.webhook", 'it needs webhook.url, with webhook.format = "cloudevents"'
        if not alert.on:
            yield f"{path}.on", "name what it tells of"
    if settings.smtp.host:
        yield from ((f"smtp.{key}", why) for key, why in _smtp_problems(settings.smtp))


def _smtp_problems(smtp: SmtpSettings) -> Iterable[tuple[str, str]]:
    if not _is_address(parseaddr(smtp.sender)[1]) or "\n" in smtp.sender or "\r" in smtp.sender:
        yield "sender", "it must be an address such as Taximeter <taximeter@example.org>"
    if smtp.password_env and not _is_variable(smtp.password_env):
        yield "password_env", "it must be the name of an environment variable, not the password itself"
    if smtp.password_env and smtp.password_file:
        yield "password_file", "with password_env set, the password comes from there; never both"
    if bool(smtp.username) != bool(smtp.password_env or smtp.password_file):
        yield "username", "a login needs username, and password_env or password_file"
    if smtp.username and smtp.security == "none" and not is_loopback(smtp.host):
        yield "security", "the password would go over the network as it is: use starttls or tls"
    if smtp.ca_file and not Path(smtp.ca_file).is_file():
        yield "ca_file", "there is no such file"
