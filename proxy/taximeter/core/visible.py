"""Text from outside made safe to show: what would move a cursor, end a line or turn the reading order is spelled out.

Names of models, hosts and paths, and upstreams' error texts are written by others. In a log, on a terminal or on a
page they must be seen for what they are, so there is this one place for all of them. Pure.
"""

from __future__ import annotations

import re

_UNSEEN = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # C0 with ESC, DEL, C1 with its one-byte CSI; not tab, LF and CR
    "\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e"  # unseen formats, as all that follow
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # bidi marks, line and paragraph separators
    "\ud800-\udfff"  # halves of characters
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
"""With tab, LF and CR: Unicode's categories Cc, Cf, Cs, Zl and Zp (the standard library's expressions know none)."""
_odd = re.compile(f"[\t\n\r{_UNSEEN}]")
_odd_in_json = re.compile(f"[{_UNSEEN}]")  # raw, the three can only stand between values
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: str) -> str:
    """The same text in one line, each odd character as Python spells it: `\\n`, `\\x1b`, `\\u202e`."""
    return text if text.isascii() and text.isprintable() else _odd.sub(_spelled, text)


def visible_json(document: str) -> str:
    """A JSON document of the same value, with JSON's own escapes for odd characters inside its strings.

    Blanks and line breaks between values, and after the document, stay.
    """
    return _odd_in_json.sub(_spelled_in_json, document)


def _spelled(found: re.Match[str]) -> str:
    odd, code = found[0], ord(found[0])
    if odd in _NAMED:
        return _NAMED[odd]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _spelled_in_json(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
