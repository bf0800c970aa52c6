"""Keys and budgets in any order, against a model of what must be there; each step over the real control port."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import requests
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from fuzz.running import ADMIN

workspaces = st.sampled_from(["acme", "beta", "a.b:c@d-e_f"])
bad = st.sampled_from(["", " ", "a b", "ü", "x" * 129, "a\0", "../x"])
names = st.text(max_size=9)
bad_limits = st.sampled_from(
    ["0", "-1", "1e999999", "-1e999999", "1e-999999", "NaN", "sNaN", "Infinity", "0.0000000001"]
)
limits = st.decimals("0.000000001", "9000000", places=9) | st.integers(1, 9_000_000).map(Decimal)


def machine(url: str) -> type[RuleBasedStateMachine]:
    """A state machine class for one running node. What a run has made it takes back in the end."""
    session = requests.Session()
    session.headers.update(ADMIN)

    def ask(method: str, path: str, status: int, body: Any = None) -> Any:
        answer = session.request(method, url + path, json=body, timeout=30)
        assert answer.status_code == status, (method, path, body, answer.text)
        return json.loads(answer.content, parse_float=Decimal)  # money has more digits than a float

    class KeysAndBudgets(RuleBasedStateMachine):
        keys = Bundle("keys")
        budgets = Bundle("budgets")

        def __init__(self) -> None:
            super().__init__()
            self.open: dict[str, tuple[str, str]] = {}
            """Key id -> workspace, secret."""
            self.gone: dict[str, str] = {}
            """Id of a revoked key -> its secret."""
            self.limits: dict[str, Decimal] = {}

        @rule(
            target=keys,
            workspace=workspaces,
            name=st.text(max_size=20),
            models=st.lists(names, max_size=3),
        )
        def make_key(self, workspace: str, name: str, models: list[str]) -> str:
            made = ask("POST", "/keys", 201, {"workspace": workspace, "name": name, "models": models})
            assert (made["workspace"], made["name"], made["models"], made["revoked_at"]) == (
                workspace,
                name,
                models,
                None,
            )
            self.open[made["id"]] = workspace, made["key"]
            return str(made["id"])

        @rule(workspace=bad)
        def make_bad_key(self, workspace: str) -> None:
            ask("POST", "/keys", 400, {"workspace": workspace})

        @rule(key=keys)
        def revoke(self, key: str) -> None:
            revoked = ask("DELETE", f"/keys/{key}", 200)
            assert revoked["revoked_at"] is not None
            if key in self.open:
                self.gone[key] = self.open.pop(key)[1]
            assert ask("DELETE", f"/keys/{key}", 200) == revoked  # a second time changes nothing

        @rule(key=keys)
        def use(self, key: str) -> None:
            workspace, secret = self.open.get(key, ("", self.gone.get(key, "")))
            answer = requests.get(f"{url}/usage", headers={"authorization": f"Bearer {secret}"}, timeout=30)
            assert answer.status_code == (200 if workspace else 401)
            if workspace:
                assert answer.json()["filters"] == {"workspace": workspace}

        @rule(
            target=budgets, workspace=workspaces, limit=limits, task=st.sampled_from(["", "index"]),
            period=st.sampled_from(["day", "month", "total"]), mode=st.sampled_from(["soft", "hard"]),
        )  # fmt: skip
        def make_budget(self, workspace: str, limit: Decimal, task: str, period: str, mode: str) -> str:
            body = {"workspace": workspace, "limit": str(limit), "task": task, "period": period, "mode": mode}
            made = ask("POST", "/budgets", 201, body)
            assert (made["workspace"], made["task"], made["period"]) == (workspace, task or None, period)
            self.limits[made["id"]] = limit
            return str(made["id"])

        @rule(limit=bad_limits)
        def make_bad_budget(self, limit: str) -> None:
            ask("POST", "/budgets", 400, {"workspace": "acme", "limit": limit})

        @rule(budget=consumes(budgets))
        def end_budget(self, budget: str) -> None:
            ask("DELETE", f"/budgets/{budget}", 200)
            del self.limits[budget]

        @rule(name=st.text("abcdef0123456789_", min_size=1, max_size=20))
        def end_what_is_not_there(self, name: str) -> None:
            ask("DELETE", f"/keys/key_{name}x", 404)
            ask("DELETE", f"/budgets/bud_{name}x", 404)

        @invariant()
        def what_was_made_is_listed(self) -> None:
            listed = {each["id"]: each for each in ask("GET", "/keys", 200)["data"]}
            assert all(listed[key]["revoked_at"] is None for key in self.open)
            assert all(listed[key]["revoked_at"] is not None for key in self.gone)
            assert not any("sha256" in each or "key" in each for each in listed.values())
            budgets = {each["id"]: Decimal(str(each["limit"])) for each in ask("GET", "/budgets", 200)["data"]}
            assert {name: budgets.get(name) for name in self.limits} == self.limits

        def teardown(self) -> None:
            for key in self.open:
                ask("DELETE", f"/keys/{key}", 200)
            for budget in self.limits:
                ask("DELETE", f"/budgets/{budget}", 200)

    return KeysAndBudgets
