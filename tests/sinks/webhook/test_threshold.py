import json

from msgspec.structs import replace

from present import present
from taximeter.budgets.rule import Budget
from taximeter.budgets.thresholds import reached
from taximeter.sinks.webhook.letters import threshold_body

NOON_US = 1_793_707_200_000_000
"""2026-11-03T12:00:00Z."""


def test_a_threshold_is_told_with_the_value_it_is_of():
    budget = Budget(id="bud_1", workspace="acme", end_user="*", model="gpt-4o", limit=10**9, period="day")
    allowance = present(budget.of_values(("alice", "gpt-4o")))
    assert list(reached(allowance, 490_000_000, 0, [50, 80], NOON_US)) == []
    [half, most] = reached(allowance, 800_000_000, 10_000_000, [50, 80, 100], NOON_US)
    assert (half.percent, most.percent, most.period) == (50, 80, "day:2026-11-03")
    told = json.loads(threshold_body(most, "n1"))
    assert (told["type"], told["subject"], told["source"]) == ("taximeter.budget.threshold", "acme", "urn:taximeter:n1")
    assert told["id"] == "bud_1:acme:alice:1793664000:80" != json.loads(threshold_body(half, "n1"))["id"]
    assert told["data"] == {
        "id": "bud_1", "workspace": "acme", "unit": "usd", "limit": 10**9, "mode": "hard", "key_id": None, "task": None,
        "track": None, "document": None, "end_user": "alice", "model": "gpt-4o", "upstream": None, "percent": 80,
        "period": "day:2026-11-03", "spent": 800_000_000, "charged": 10_000_000,
    }  # fmt: skip


def test_the_same_threshold_of_two_workspaces_or_of_two_combinations_of_values_is_two_things_to_tell():
    each = Budget(id="bud_1", workspace="*", model="*", upstream="*", limit=10, unit="requests", period="total")
    names = [("acme", ("a/b", "c")), ("acme", ("a", "b/c")), ("globex", ("a", "b/c")), ("acme", ("a:b", "c"))]
    allowances = [present(replace(each, workspace=workspace).of_values(values)) for workspace, values in names]
    keys = {told.key for allowance in allowances for told in reached(allowance, 10, 0, [100], NOON_US)}
    assert len(keys) == len(names)


def test_of_a_rolling_window_a_threshold_is_told_once_in_its_length():
    budget = Budget(id="bud_1", workspace="acme", limit=10, unit="requests", period="rolling 1h")
    keys = {
        each.key
        for minutes in range(0, 120, 10)
        for each in reached(present(budget.sole), 10, 0, [100], NOON_US + minutes * 60 * 10**6)
    }
    assert len(keys) == 2
