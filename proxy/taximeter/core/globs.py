"""Patterns from outside, with `*` as their only sign: matching takes no longer than the text is, whatever they say.

`fnmatch` compiles a regular expression from each; of one made for it (60,000 `[`) that takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable


def glob(pattern: str) -> Callable[[str], bool]:
    """Whether a text is the pattern, each `*` of which stands for any characters or none. Case counts."""
    first, *parts = pattern.split("*")
    if not parts:
        return lambda text: text == first
    last = parts.pop()

    def matches(text: str) -> bool:
        if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
            return False
        at, until = len(first), len(text) - len(last)
        for part in parts:  # the leftmost place is always as good as any later one
            found = text.find(part, at, until)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return matches
