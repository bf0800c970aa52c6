"""How many tokens a text may have where its tokenizer is not known: from its bytes, and marked as an estimate.

Measured as estimate / count over o200k_base, cl100k_base, Llama 3 and Qwen 3: 183 recorded texts of 200 characters and
more, mostly English prose and JSON: median 1.15 to 1.2, nine in ten within 0.7 and 1.6. One text each of Chinese 0.9 to
1.7, Japanese 0.9 to 1.4, Korean 0.9 to 1.6, Russian 1.1 to 2.1. So an estimate is rather high than low.
"""

from __future__ import annotations

import re

BYTES_PER_TOKEN = 4
"""Rule of thumb for text in alphabets: https://help.openai.com/en/articles/4936856 (4 characters of English)."""

_CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]+"
)
"""Scripts where a character is about a token: Chinese, Japanese, Korean, with their punctuation."""


def estimated_tokens(text: str) -> int:
    """At least 1 for any text that is not empty. About 0.1 ms for 16,000 characters."""
    if text.isascii():
        return -(-len(text) // BYTES_PER_TOKEN)
    others = _CJK.sub("", text)
    cjk = len(text) - len(others)
    return cjk - (-len(others.encode("utf-8", "replace")) // BYTES_PER_TOKEN)
