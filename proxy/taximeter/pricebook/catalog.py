"""The compiled price file: what the parent writes and every worker loads. Plain values and how names match them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import msgspec

from taximeter.core.prices import Card, Schedule
from taximeter.pricebook.changes import Fee, Region

FORMAT = 4


class Rule(msgspec.Struct, frozen=True, array_like=True):
    """When a listed model's entry matches a name: one test, or several joined by `or` / `and`."""

    kind: str
    """equals | starts_with | ends_with | contains | regex | or | and"""
    text: str = ""
    rules: tuple[Rule, ...] = ()

    def matches(self, name: str) -> bool:
        """`name` in lower case; texts are too, but for regular expressions."""
        match self.kind:
            case "equals":
                return name == self.text
            case "starts_with":
                return name.startswith(self.text)
            case "ends_with":
                return name.endswith(self.text)
            case "contains":
                return self.text in name
            case "regex":
                return re.search(self.text, name) is not None
            case "or":
                return any(rule.matches(name) for rule in self.rules)
            case "and":
                return all(rule.matches(name) for rule in self.rules)
        raise ValueError(f"unknown rule {self.kind!r}")

    def exact(self) -> tuple[str, ...] | None:
        """The names this rule is equal to, where it is nothing but equality."""
        if self.kind == "equals":
            return (self.text,)
        if self.kind == "or" and all(rule.kind == "equals" for rule in self.rules):
            return tuple(rule.text for rule in self.rules)
        return None


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One model's prices in every service tier they are listed in; "" is the list price."""

    model: str
    """Its listed name, or in prices.toml a name or pattern with `*`."""
    rule: Rule | None = None
    """How names match; None: by `model` itself."""
    tiers: dict[str, Schedule]
    context_tokens: int | None = None
    """Its context window; None: not listed."""


class Publisher(msgspec.Struct, frozen=True, kw_only=True):
    """One provider's list, in matching order."""

    id: str
    models: list[Listed]
    instead: list[str] = []
    """Providers whose lists apply to models this one has none for (Azure serves OpenAI's)."""


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """A price file's entries of one provider and one model name or pattern."""

    provider: str
    listed: Listed

    def matches(self, name: str) -> bool:
        """Exact, or by pattern."""
        return fnmatchcase(name, self.listed.model)


class Catalog(msgspec.Struct, kw_only=True):
    """Everything compiled."""

    format: int = FORMAT
    compiled_at: int
    """µs since epoch."""
    source: str
    """Package and version of the list prices."""
    declared: list[Declared] = []
    """The operator's prices, exact names first, then patterns, the longest first."""
    shipped: list[Declared] = []
    """Those that come with Taximeter, in the same order: they add to the operator's, which stand over them."""
    regions: list[Region] = []
    """Of both files, the operator's first."""
    fees: list[Fee] = []
    """Likewise."""
    env_llm: Card | None = None
    env_embedding: Card | None = None
    publishers: list[Publisher] = []
