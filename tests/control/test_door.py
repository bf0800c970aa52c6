"""Tokens that are tried, by form and by header: counted, logged, compared in one place."""

import ast
import asyncio
import re
from pathlib import Path

import pytest

from control_plane import bearing
from taximeter.config import AuthSettings, ControlSettings, Settings
from taximeter.control.door import attempts, trust
from taximeter.control.door.attempts import (
    IN_ALL,
    IN_ALL_S,
    MOST_ADDRESSES,
    OF_ADDRESS,
    OF_ADDRESS_S,
    Attempts,
    network,
)
from taximeter.keys import rule as keys
from taximeter.keys.rule import digest

TOKEN = "the-admin-token"
SECURED = Settings(auth=AuthSettings(admin_token_sha256=digest(TOKEN)))
ROOT = Path(__file__).parents[2] / "proxy/taximeter"


async def form(control, token):
    return await control.client.post("/dashboard/login", data={"token": token}, follow_redirects=False)


@pytest.fixture
def patient(monkeypatch):
    """However slow the machine is, no try comes back while a test runs."""
    monkeypatch.setattr(attempts, "OF_ADDRESS_S", 10_000.0)


async def test_too_many_wrong_tokens_in_the_form_are_no_longer_looked_at(start, patient, caplog):
    control = await start(SECURED)
    for _ in range(OF_ADDRESS):
        assert (await form(control, "guess")).status_code == 401
    answer = await form(control, TOKEN)  # not even the right one: or the answer would tell it from the others
    assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 10_000
    assert "set-cookie" not in answer.headers and "Too many wrong tokens" in answer.text
    assert "further tries are refused" in caplog.text


async def test_wrong_bearer_tokens_count_with_those_of_the_form(start, patient):
    control = await start(SECURED)
    for number in range(OF_ADDRESS):
        if number % 2:
            assert (await form(control, "guess")).status_code == 401
        else:
            assert (await control.client.get("/usage", headers=bearing("guess"))).status_code == 401
    refused = await control.client.get("/usage", headers=bearing(TOKEN))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1
    probe = await control.client.get("/healthz", headers=bearing("guess"))  # or its node would be restarted for it
    assert (probe.status_code, probe.json()) == (200, {"status": "ok"})


async def test_who_has_signed_in_and_proxy_keys_go_on_while_tokens_are_refused(start, patient):
    control = await start(SECURED)
    _, secret = control.keys.create("acme")
    assert (await form(control, TOKEN)).status_code == 303
    for _ in range(OF_ADDRESS + 1):
        await form(control, "guess")
    assert (await form(control, TOKEN)).status_code == 429
    assert (await control.client.get("/keys")).status_code == 200  # by its session
    control.client.cookies.clear()
    assert (await control.client.get("/usage", headers=bearing(secret))).status_code == 200
    for _ in range(2 * OF_ADDRESS):  # a revoked key somewhere in a script is no guess at the admin token
        assert (await control.client.get("/usage", headers=bearing("tm-gone"))).status_code == 401


async def test_every_try_is_a_line_of_the_log_without_the_token(start, caplog):
    caplog.set_level("INFO", logger="taximeter.access")
    control = await start(SECURED)
    await form(control, "a-wrong-one")
    claimed = {"authorization": b"Bearer another-wrong-one", "x-forwarded-for": b"9.9.9.9 \xe9"}
    await control.client.get("/usage", headers=claimed)
    assert (await form(control, TOKEN)).status_code == 303
    await control.client.post("/dashboard/logout", follow_redirects=False)
    said = [each.getMessage() for each in caplog.records if each.name == "taximeter.access"]
    assert said == [
        "127.0.0.1 was refused: a wrong token in the sign-in form",
        "127.0.0.1 (for '9.9.9.9 \\xe9') was refused: a wrong token in a bearer token",
        "127.0.0.1 signed in as admin",
        "127.0.0.1 signed out",
    ]
    assert all(each.created for each in caplog.records)
    assert TOKEN not in caplog.text and "wrong-one" not in caplog.text


def clocked():
    now = [0.0]
    return now, Attempts(lambda: now[0])


def test_tries_come_back_one_by_one():
    now, tries = clocked()
    for _ in range(OF_ADDRESS):
        assert tries.wait_s("10.0.0.1") == 0
        tries.failed("10.0.0.1")
    assert tries.wait_s("10.0.0.1") == OF_ADDRESS_S
    assert tries.wait_s("10.0.0.2") == 0
    now[0] += OF_ADDRESS_S
    assert tries.wait_s("10.0.0.1") == 0
    assert tries.failed("10.0.0.1") and tries.wait_s("10.0.0.1") > 0


def test_many_addresses_are_bounded_together_but_do_not_keep_out_who_was_in():
    now, tries = clocked()
    tries.succeeded("10.9.9.9")
    for number in range(IN_ALL):
        tries.failed(f"10.0.0.{number}")
    assert tries.wait_s("10.1.1.1") == 1 and tries.wait_s("10.9.9.9") == 0
    now[0] += IN_ALL_S
    assert tries.wait_s("10.1.1.1") == 0


def test_memory_is_bounded():
    _, tries = clocked()
    for number in range(MOST_ADDRESSES + 50):
        tries.failed(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1")
        tries.succeeded(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1")
    assert len(tries) == 2 * MOST_ADDRESSES


@pytest.mark.parametrize(
    ("address", "name"),
    [("10.0.0.1", "10.0.0.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"), ("", ""), ("x" * 99, "x" * 64)],
)
def test_what_counts_as_one_address(address, name):
    assert network(address) == name


async def test_every_token_is_compared_in_constant_time(start, monkeypatch):
    """By construction: whatever way a token comes, what decides is hmac.compare_digest on two hashes."""
    compared = []

    def spy(one, other):
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(keys, "compare_digest", spy)
    control = await start(SECURED)
    await control.client.get("/usage", headers=bearing("wrong"))
    await control.client.get("/usage", headers=bearing(TOKEN))
    await form(control, "wrong")
    assert (await form(control, TOKEN)).status_code == 303
    await control.client.get("/usage")  # the session's token, again (and once more in the test's client)
    assert len(compared) >= 5
    assert all(len(one) == len(other) == 64 for one, other in compared)


SECRET = re.compile(r"(?i)token|secret|sha256|password|signature|\bmac\b|_mac|presented")


def test_no_secret_is_compared_with_an_operator():
    """`==`, `!=` and `in` stop at the first byte that differs; only `matches` of keys/rule.py may compare a secret."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Compare):
                continue
            if not all(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops):
                continue
            sides = [node.left, *node.comparators]
            if any(isinstance(side, ast.Constant | ast.Tuple | ast.List | ast.Set) for side in sides):
                continue
            names = [ast.unparse(side) for side in sides]
            # Numbers of tokens are everywhere; a secret is never called `…_tokens`.
            if any(SECRET.search(re.sub(r"\w*tokens\w*|tokenize\w*", "", name)) for name in names):
                found.append((str(path.relative_to(ROOT)), ast.unparse(node)))
    assert {place for place, _ in found} <= OPEN, found


OPEN = {
    "config/watching.py",  # whether a mail server's name and password are both given, or neither
    "gateway/upstream/http2.py",  # whether a header's name is one of those that HPACK must not keep
    "pricebook/changes.py",  # the name of a price
    "evidence/roots.py",  # the id of a public key
    "config/checks.py",  # the configuration's own hashes with each other, at start
    "gateway/metering/tokenizing.py",  # a vocabulary's checksum
    "sinks/redis/rebuild.py",  # whose turn it is in Redis: a name, not a secret
}


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Anything"]
)
async def test_the_first_header_of_a_reverse_proxy_ends_the_trust_in_loopback(start, name, caplog):
    control = await start()
    assert (await control.client.get("/usage")).status_code == 200
    assert (await control.client.get("/usage", headers={name: "1.1 x"})).status_code == 401
    answer = await control.client.get("/usage")  # through the same proxy, which does not always add it
    assert answer.status_code == 401 and "auth.admin_token_sha256" in answer.json()["error"]["message"]
    assert (await control.client.get("/usage", headers=bearing("anything"))).status_code == 401
    assert caplog.text.count("loopback is not trusted any more") == 1 and name.lower() in caplog.text


async def test_trust_in_loopback_can_be_refused(start):
    control = await start(Settings(control=ControlSettings(trust_loopback=False)))
    assert (await control.client.get("/usage")).status_code == 401
    assert (await control.client.get("/healthz")).json() == {"status": "ok"}


@pytest.mark.parametrize("exposed", [{"listen": "0.0.0.0:8000"}, {"admin_listen": "10.0.0.7:8001"}])
async def test_loopback_is_trusted_only_while_both_ports_are_on_it(start, exposed):
    control = await start(Settings(**exposed))
    assert (await control.client.get("/usage")).status_code == 401


async def raw(control, request):
    host, port = control.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_http_1_0_is_what_a_silent_reverse_proxy_speaks(control):
    """nginx's `proxy_pass` with nothing else: HTTP/1.0, Host of the upstream, no header that says so."""
    answer = await raw(control, b"GET /keys HTTP/1.0\r\nHost: 127.0.0.1:8001\r\nConnection: close\r\n\r\n")
    assert b" 401 " in answer.split(b"\r\n", 1)[0]
    answer = await raw(control, b"GET /keys HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nConnection: close\r\n\r\n")
    assert b" 200 " in answer.split(b"\r\n", 1)[0]


def test_what_is_said_at_start_and_by_check():
    assert trust.admin_is(SECURED) == "admin: who has the admin token"
    assert "from this machine" in trust.admin_is(Settings())
    assert "nobody" in trust.admin_is(Settings(listen="0.0.0.0:8000"))
    assert trust.warning(SECURED) == ""
    assert "whoever reaches the control port from this machine is the admin" in trust.warning(Settings())
    assert "nobody is the admin" in trust.warning(Settings(control=ControlSettings(trust_loopback=False)))
    assert "nobody is the admin" in trust.warning(Settings(listen="0.0.0.0:8000"))
