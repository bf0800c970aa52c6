"""A fixed budget of what `make fuzz` does for as long as one likes; the same examples each time."""

import pytest
import requests
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from fuzz.api import NASTY, by_schema, operations, with_nasty_values
from fuzz.machine import machine
from fuzz.running import ADMIN, running_node


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with running_node(tmp_path_factory.mktemp("node")) as (_, url):
        yield url


pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(300)]


def test_every_operation_answers_as_the_document_says(url):
    with requests.Session() as session:
        for operation in operations(url):
            by_schema(operation, url, session, examples=8, chance=1)


def test_nasty_values_are_refused_and_break_nothing(url):
    with requests.Session() as session:
        for operation in operations(url):
            with_nasty_values(operation, url, session, examples=25, chance=1)


def test_keys_and_budgets_in_any_order(url):
    run_state_machine_as_test(
        machine(url),
        settings=settings(
            max_examples=8, stateful_step_count=15, derandomize=True, database=None, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


MOMENTS = ("0001-01-01", "9999-12-31", "9999-12-31T23:59:59.999999-14:00", "1969-12-31")


@pytest.mark.parametrize("name", ["from", "to"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_moments_that_cannot_be_are_refused_by_all_that_take_them(url, name, moment):
    with requests.Session() as session:
        for operation in operations(url):
            taken = {each.name for each in operation.query}
            if name in taken and operation.method.upper() == "GET":
                path = operation.path.replace("{", "").replace("}", "")
                asked = {each.name: "acme" for each in operation.query if each.is_required}
                asked |= {name: moment} | ({"tz": "America/Adak"} if "tz" in taken else {})
                answer = session.get(url + path, params=asked, headers=ADMIN, timeout=30)
                assert answer.status_code in (400, 404), (path, answer.status_code, answer.text)
                if answer.status_code == 400 and "/dashboard" not in path and path != "/":
                    assert answer.json()["error"]["param"] == name, path


DEEP = {
    "an array": b"[" * 20_000 + b"]" * 20_000,
    "an object": b'{"a":' * 9_000 + b"1" + b"}" * 9_000,
    "a field": b'{"workspace":"acme","models":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "an unknown field": b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
}


@pytest.mark.parametrize("path", ["/keys", "/budgets", "/reprice", "/webhook/resend", "/dashboard/login"])
@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP.keys())
def test_deep_json_is_a_bad_request(url, path, body):
    answer = requests.post(url + path, data=body, headers=ADMIN | {"content-type": "application/json"}, timeout=30)
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)


def test_the_document_says_how_money_errors_and_pages_look(url):
    document = requests.get(f"{url}/schema/openapi.json", headers=ADMIN, timeout=30).json()
    cost = document["components"]["schemas"]["UsageAggregateResponse"]["properties"]["estimated_cost_usd"]
    assert {"type": "number"} in cost["oneOf"]
    for path, item in document["paths"].items():
        for operation in item.values():
            assert {"4XX", "503"} <= operation["responses"].keys() and "400" not in operation["responses"], path


def test_the_nasty_values_hold_what_has_broken_something():
    assert {"0001-01-01", "\0", "1e999999", str(2**63)} <= set(NASTY)
