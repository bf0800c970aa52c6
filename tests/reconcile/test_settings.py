"""What settings of a comparison can be meant, and what `check` says of them."""

import asyncio

import msgspec
import pytest

from billing_provider import Billing
from taximeter.cli.check_reconciles import doubts, reconcile_troubles
from taximeter.config import Settings, UpstreamSettings
from taximeter.config.checks import before_serving, check
from taximeter.core.errors import ConfigError

FILE = {"kind": "file", "path": "bill.csv", "provider": "azure"}


def settings(*given):
    told = [{"name": f"bill{n}", "kind": "openai", "api_key_env": "ADMIN"} | each for n, each in enumerate(given)]
    for each in told:
        if each["kind"] == "file":
            del each["api_key_env"]
    return msgspec.convert({"reconcile": told}, Settings)


def test_what_can_be_meant_is_taken():
    columns = {"columns": {"cost_usd": "Spend"}}
    check(
        settings(
            {},
            {"kind": "openrouter", "days": 29},
            FILE | columns,
            {"kind": "anthropic", "by": "upstream", "only_upstreams": ["openai"]},
        ),
        lambda _: "t",
    )


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ([{"name": "no good"}], "reconcile[0].name"),
        ([{"name": "a"}, {"name": "a"}], "reconcile[1].name"),
        ([{"only_upstreams": ["openai", "gone"]}], "reconcile[0].only_upstreams[1]"),
        ([{"at": "24:00"}], "reconcile[0].at"),
        ([{"api_key_env": ""}], "reconcile[0].api_key_env"),
        ([{"api_key_file": "x"}], "reconcile[0].api_key_env"),
        ([{"api_key_env": "sk-admin-secret"}], "reconcile[0].api_key_env: ***"),
        ([{"path": "x"}], "reconcile[0].path"),
        ([{"base_url": "ftp://x"}], "reconcile[0].base_url"),
        ([{"base_url": "https://u:secret@x"}], "reconcile[0].base_url"),
        ([{"kind": "openrouter", "by": "key"}], "reconcile[0].by"),
        ([{"kind": "openrouter", "by": "workspace"}], "reconcile[0].by"),
        ([{"kind": "openrouter", "days": 30}], "reconcile[0].days"),
        ([{"kind": "openrouter", "days": 7, "lag_h": 600}], "reconcile[0].days"),
        ([FILE | {"path": ""}], "reconcile[0].path"),
        ([FILE | {"provider": ""}], "reconcile[0].provider"),
        ([FILE | {"base_url": "https://x"}], "reconcile[0].base_url"),
        ([FILE | {"columns": {"price": "x"}}], "reconcile[0].columns.price"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, path):
    with pytest.raises(ConfigError) as caught:
        check(settings(*given), lambda path: "t.toml")
    assert path in str(caught.value) and "secret" not in str(caught.value)


def test_a_credential_that_is_not_there_is_found_before_serving(tmp_path):
    secret = tmp_path / "key"
    for given, environ, why in (
        ({}, {}, "the environment variable ADMIN holds no credential"),
        ({}, {"ADMIN": "a\nb"}, "can stand in no header"),
        ({"api_key_env": "", "api_key_file": str(secret)}, {}, "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=why):
            before_serving(settings(given), environ)
    secret.write_text("sk-admin-1\n")
    before_serving(settings({}, {"api_key_env": "", "api_key_file": str(secret)}, FILE), {"ADMIN": "sk-admin"})


async def test_check_tries_each_once(tmp_path):
    def tried(given):
        return asyncio.to_thread(lambda: list(reconcile_troubles(settings(*given), {"ADMIN": "admin-secret"})))

    async with Billing([]) as billing:
        file = FILE | {"path": str(tmp_path / "none.csv")}
        good, bad = await tried([{"base_url": billing.url}, file])
        assert good == [] and "cannot be read" in str(bad[0])
        billing.faults.append((429, {}, b""))
        ((trouble,),) = await tried([{"base_url": billing.url}])
        assert str(trouble) == "/organization/costs answers 429" and len(billing.asked) == 2
        billing.credential = "another"
        ((trouble,),) = await tried([{"base_url": billing.url}])
        assert "answers 401" in str(trouble) and "administrator" in trouble.do
    assert await tried([{"api_key_env": "NONE"}]) == [], "told where settings are tried"


def test_what_is_probably_not_meant_is_doubted():
    def doubted(given, environ, **upstream):
        whole = settings(given)
        whole.upstream = [UpstreamSettings(**upstream)]
        found = list(doubts(whole.reconcile[0], "reconcile[0]", whole, environ))
        assert all(each.level == "warning" and each.do for each in found)
        return [each.setting for each in found]

    keyed = {"api_key_env": "CALLS"}
    assert doubted({}, {"ADMIN": "sk-1", "CALLS": "sk-1"}, **keyed) == ["reconcile[0].api_key_env"]
    assert doubted({}, {"ADMIN": "sk-1", "CALLS": "sk-2"}, **keyed) == []
    assert doubted({"by": "upstream"}, {"ADMIN": "sk-1"}) == ["reconcile[0].by"]
    assert doubted({"by": "upstream", "names": {"key_1": "openai"}}, {"ADMIN": "sk-1"}) == []
    assert doubted({}, {}) == [], "told where settings are tried"


def test_upstreams_that_cannot_be_told_apart_are_doubted():
    keys = {"ADMIN": "sk-1", "CALLS": "sk-2", "ALIKE": "sk-2", "OTHER": "sk-3"}

    def doubted(kept, given, *variables):
        whole = settings(given)
        whole.history.retention_days = kept
        whole.upstream = [UpstreamSettings(name=f"u{n}", api_key_env=each) for n, each in enumerate(variables)]
        return [str(each) for each in doubts(whole.reconcile[0], "reconcile[0]", whole, keys)]

    apart = {"by": "upstream", "days": 7}
    (why,) = doubted(9, apart, "CALLS", "OTHER", "ALIKE")
    assert why.startswith("u0 and u2 send the same key")
    assert doubted(9, {"by": "key"}, "CALLS", "ALIKE") == [] == doubted(9, apart, "CALLS", "OTHER")
    (why,) = doubted(8, apart, "CALLS", "OTHER")
    assert "forgets after 8 days" in why
    assert doubted(8, {"only_upstreams": ["u0"]}, "CALLS", "OTHER") == [why]
    assert doubted(8, {"only_upstreams": ["u0"]}, "CALLS") == [], "sums by provider say the same"
