"""Every operation of the OpenAPI document, asked with what its schema allows, what it forbids, and nasty values.

What must hold: no answer of 500 or more that is not declared, and every answer in the shape the document says.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

from fuzz.running import ADMIN

ENDLESS = ("/usage/live",)
"""Answers that never end."""

NOT_CHECKED = [
    positive_data_acceptance,  # a schema cannot say what a time zone or a group-by is
    negative_data_rejection,  # in a query everything is a text
    ignored_auth,  # tests/control/test_access.py; its wrong tokens would be refused for their number
]
_QUIET: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.generate],
}

NASTY = (
    "0001-01-01", "9999-12-31", "9999-12-31T23:59:59.999999-14:00", "1970-01-01", "1969-12-31T23:59:59Z",
    "2026-02-30", "", "0", "-1", "1e999999", "NaN", "Infinity", "9" * 400, str(2**63), str(-(2**63) - 1),
    "\0", "\ud7ff\uffff", "\u202e", "'", '"', "%", "_", "\\", "../../etc/passwd",
    "[" * 2_000, "*" * 200, "a," * 150, ",".join(map(str, range(3_000))), "x" * 8_000,
    "Europe/Berlin", "Etc/GMT+12", "Pacific/Kiritimati", "minute", "hour", "month", "track",
    "workspace,model,task,track,document,end_user", "page_" + "A" * 50,
    "WzEsMl0=", "WzE4NDQ2NzQ0MDczNzA5NTUxNjE2LDBd", "W1tbW1tbW1tbW1tb",  # [1,2], [2**64,0], [[[[
    "true", "null", "acme", "t-1", "req-1",
)  # fmt: skip
values = st.one_of(st.sampled_from(NASTY), st.text(max_size=30))


def operations(url: str) -> list[Any]:
    schema = schemathesis.openapi.from_url(f"{url}/schema/openapi.json", headers=ADMIN)
    found: list[Any] = [each.ok() for each in schema.get_all_operations()]  # type: ignore[union-attr]
    return [each for each in found if each.path not in ENDLESS]


def by_schema(operation: Any, url: str, session: requests.Session, examples: int, chance: int) -> None:
    """Ask one operation with generated data; raises where the answer is not what the document says."""
    for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
        try:
            cases = operation.as_strategy(generation_mode=mode)
        except schemathesis.errors.SchemathesisError:
            continue

        @seed(chance)
        @settings(max_examples=examples, **_QUIET)
        @given(case=cases)
        def ask(case: Any) -> None:
            answer = case.call(base_url=url, session=session, headers=ADMIN, timeout=30)
            case.validate_response(answer, headers=ADMIN, excluded_checks=NOT_CHECKED)

        _unless_empty(ask)


def with_nasty_values(operation: Any, url: str, session: requests.Session, examples: int, chance: int) -> None:
    """Ask one operation with values of the kind that break things in any of its parameters."""
    names = [each.name for each in operation.query]
    paths = [each.name for each in operation.path_parameters]
    queries = st.lists(st.tuples(st.sampled_from(names or ["x"]), values), max_size=4)

    @seed(chance)
    @settings(max_examples=examples, **_QUIET)
    @given(query=queries, path=st.tuples(*(values for _ in paths)))
    def ask(query: list[tuple[str, str]], path: tuple[str, ...]) -> None:
        where = operation.path
        for name, value in zip(paths, path, strict=True):
            where = where.replace(f"{{{name}}}", quote(value, safe=""))
        method = operation.method.upper()
        body: dict[str, str] | None = {} if method == "POST" else None
        answer = session.request(method, url + where, params=query, json=body, headers=ADMIN, timeout=30)
        assert answer.status_code < 500 or answer.status_code == 503 == _not_now(answer), (where, query, answer.text)

    ask()


def _not_now(answer: requests.Response) -> int:
    """503, where it is one that has a reason of its own; a database that stumbles over a value has none."""
    return 0 if "history_unavailable" in answer.text else 503


def _unless_empty(ask: Any) -> None:
    from hypothesis.errors import Unsatisfiable

    try:
        ask()
    except Unsatisfiable:  # nothing that this schema forbids
        return
