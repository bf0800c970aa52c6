"""What `check` and every start refuse of [billing], `[[currency]]` and `[[plan]]`, and what becomes of the rest."""

from decimal import Decimal

import pytest

from taximeter.billing.rule import Plan, Price, Rate
from taximeter.config import load
from taximeter.config.plans import plans, rates
from taximeter.core.errors import ConfigError


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def from_text(text):
        (tmp_path / "taximeter.toml").write_text(text)
        return load(None)

    return from_text


PLAN = '[[plan]]\nname = "p"\n'
PRICE = PLAN + "[[plan.price]]\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[billing]\ntz = "Mars"', "billing.tz: 'Mars' is not allowed; No time zone"),
        ('[billing]\ncurrency = "EUR"', "billing.currency: 'EUR' is not allowed; there is no [[currency]]"),
        ('[[currency]]\ncode = "euro"\nrate = 1', "currency[0].code: 'euro' is not allowed"),
        ('[[currency]]\ncode = "EUR"\nrate = 0', "currency[0].rate: 0.0 is not allowed"),
        ('[[currency]]\ncode = "USD"\nrate = 2', "one USD is one USD"),
        ('[[currency]]\ncode = "EUR"\nrate = 1\nvalid_from = "soon"', "currency[0].valid_from: 'soon'"),
        ('[[currency]]\ncode = "EUR"\nrate = 1\n' * 2, "currency[1].valid_from: '' is not allowed; there is another"),
        ('[[plan]]\nname = " "\nmarkup_percent = 1', "plan[0].name"),
        (PLAN, "plan[0].markup_percent: '' is not allowed; give a markup, or prices"),
        (PLAN + "markup_percent = -101", "plan[0].markup_percent: -101.0 is not allowed"),
        (PLAN + "markup_percent = 1\nworkspaces = []", "plan[0].workspaces: [] is not allowed"),
        (PLAN + 'markup_percent = 1\nvalid_from = "2026-11-01T00:01:00Z"', "full quarter of an hour"),
        ((PLAN + "markup_percent = 1\n") * 2, "plan[1].valid_from: '' is not allowed; another plan"),
        (PRICE + 'code = "tokens"\nusd = 1', "plan[0].price[0].code: 'tokens' is not allowed; it must be one of input"),
        (PRICE + 'code = "input"\nusd = ""', "plan[0].price[0].usd: '' is not allowed; give an amount"),
        (PRICE + 'code = "input"\nusd = -1', "plan[0].price[0].usd: -1.0"),
        (PRICE + 'code = "input"\nusd = 1\nmodels = [""]', "plan[0].price[0].models"),
        (PRICE + 'code = "input"\nusd = 1\nincluded = 5\ntiers = [{above = 5, usd = 1}]', "tiers[0].above: 5"),
        (
            PRICE + 'code = "input"\nusd = 1\n[[plan.price]]\ncode = "rag_llm_input"\nusd = 1',
            "plan[0].price[1].code: 'rag_llm_input' is not allowed; 'input' above has a price for the same use",
        ),
        (
            PRICE + 'code = "chunk"\nusd = 1\n[[plan.price]]\ncode = "chunk"\nusd = 1\ntasks = ["a"]',
            "chunks have one price",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(read, text, problem):
    with pytest.raises(ConfigError) as refused:
        read(text)
    assert problem in str(refused.value)


def test_what_can_be_meant_becomes_plans_and_rates(read):
    settings = read(
        '[billing]\ntz = "Europe/Berlin"\n[[currency]]\ncode = "EUR"\nrate = "0.92"\nvalid_from = "2026-11-01"\n'
        + PLAN
        + 'markup_percent = 12.5\nkeys = ["key_1"]\n[[plan.price]]\ncode = "rag_llm_output"\nusd = "0.002"\n'
        'included = 10\ntiers = [{above = 20, usd = "0.001"}]\nmodels = ["gpt*"]\n'
    )
    assert rates(settings) == [Rate(code="EUR", rate=Decimal("0.92"), from_us=1_793_487_600_000_000)]
    output = Price(
        code="rag_llm_output", kind="output", per=1_000, steps=((0, 0), (10, 2_000_000), (20, 1_000_000)),
        models=("gpt*",),
    )  # fmt: skip
    assert plans(settings) == [Plan(name="p", keys=("key_1",), factor_ppm=1_125_000, prices=(output,))]
