"""Shortening the answer that a request asks for, by splicing the one number that bounds it into its bytes. Pure.

A member is never raised and nothing else is changed. What cannot be shortened so that the rules of `bounds` see it is
not shortened: the call is then refused as it would be without this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taximeter.flavors.text.splice import with_number
from taximeter.gateway.bounds.bounds import number_of, rules_of
from taximeter.gateway.bounds.models import canonical
from taximeter.gateway.bounds.rules import SHORTENED, SHORTENED_AT, Bounds

if TYPE_CHECKING:
    from taximeter.gateway.bounds.readable import Headers

_SEALS = frozenset((b"content-md5", b"digest", b"content-digest", b"signature", b"x-amz-content-sha256"))
"""Headers that say what the body's bytes are: with them no byte can be changed."""


def is_sealed(headers: Headers) -> bool:
    """Whether the client has signed the body's bytes, or it comes in a coding of which no byte can be changed."""
    return any(
        name in _SEALS
        or (name == b"authorization" and value.startswith(b"AWS4-"))
        or (name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"))
        for name, value in headers
    )


def shortened(dialect: str, provider: str, members: dict[str, object], body: bytes, answer_tokens: int) -> bytes | None:
    """`body`, whose members these are, with no answer longer than so many tokens; None where that cannot be said."""
    stated = False
    for rule in rules_of(dialect, provider):
        if rule.bounds is not Bounds.ANSWER:
            continue
        path, value = _find(members, rule.member)
        number = number_of(rule.member, value)
        if number is None:
            continue
        stated = True
        if not 1 <= number <= answer_tokens:
            changed = with_number(body, path, answer_tokens)
            if changed is None:
                return None
            body = changed
    if stated:
        return body
    member = _usual(dialect, provider, members)
    return None if member is None else with_number(body, _find(members, member)[0], answer_tokens)


def _usual(dialect: str, provider: str, members: dict[str, object]) -> str | None:
    """The member that bounds an answer where the request has none."""
    candidates = SHORTENED_AT.get((dialect, provider)) or SHORTENED.get(dialect)
    if candidates is None:
        return None
    there = {canonical(name) for name in members}
    return next((each for each in candidates[:-1] if canonical(each.partition(".")[0]) in there), candidates[-1])


def _find(members: dict[str, object], member: str) -> tuple[tuple[str, ...], object]:
    """A member's path in the request's own spelling, as far as it is there, and its value."""
    path: list[str] = []
    value: object = members
    for part in member.split("."):
        wanted = canonical(part)
        inner = value if isinstance(value, dict) else {}
        name = next((name for name in inner if canonical(name) == wanted), part)
        path.append(name)
        value = inner.get(name)
    return tuple(path), value
