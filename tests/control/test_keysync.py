import secrets

import msgspec
import pytest

from taximeter.budgets.store import BudgetStore
from taximeter.config import AuthSettings
from taximeter.control.process.sync import WHOLE_S, Sealing, Seen, exchange
from taximeter.core.sealed import Seal
from taximeter.keys.rule import digest
from taximeter.keys.store import KeyStore
from taximeter.sinks.redis.client import RedisServer

KEYS, BUDGETS = "tm:keys", "tm:budgets"


@pytest.fixture
async def server(valkey_url):
    redis = RedisServer(valkey_url)
    await redis.command("DEL", KEYS, f"tm:{{{KEYS}}}:version")
    yield redis
    await redis.command("DEL", KEYS, f"tm:{{{KEYS}}}:version")
    await redis.close()


@pytest.fixture
def node(tmp_path):
    """`node("a")`: the key ring of a node with a data directory of its own."""
    moments = iter(range(1, 1_000))

    def start(name):
        (tmp_path / name).mkdir(exist_ok=True)
        random = (bytes([ord(name), next(moments)]) * 16 for _ in iter(int, 1))
        return KeyStore(
            tmp_path / name, AuthSettings(), now_us=lambda: next(moments), random=lambda n: next(random)[:n]
        )

    return start


async def test_a_key_made_on_one_node_opens_and_ends_on_all(server, node):
    a, b = node("a"), node("b")
    key, secret = a.create("acme", name="shared", models=["gpt-*"])
    await exchange(server, a)
    await exchange(server, b)
    assert b.in_force().find(secret) == key
    b.revoke(key.id)
    await exchange(server, a)  # knows nothing of it yet
    await exchange(server, b)
    await exchange(server, a)
    assert a.in_force().find(secret) is None and a.listing() == b.listing()


async def test_no_copy_brings_a_revoked_key_back(server, node):
    a, b = node("a"), node("b")
    key, secret = a.create("acme")
    for ring in (a, b):
        await exchange(server, ring)
    a.revoke(key.id)
    await exchange(server, a)
    await server.command("DEL", KEYS)  # Redis lost everything; b still holds the key in force
    for ring in (b, a, b):
        await exchange(server, ring)
    assert b.in_force().find(secret) is None


async def test_what_is_no_key_is_left_out(server, node, caplog):
    await server.command("HSET", KEYS, "x", "{", "y", '{"id":"z","sha256":"0","workspace":"w"}')
    ring = node("a")
    await exchange(server, ring)
    assert ring.listing() == [] and "something under b'x'" in caplog.text and "b'y'" in caplog.text


async def test_nothing_is_written_when_nothing_is_new(server, node, tmp_path):
    ring = node("a")
    ring.create("acme")
    await exchange(server, ring)
    before = (tmp_path / "a" / "keys.json").stat().st_ino
    await exchange(server, ring)
    assert (tmp_path / "a" / "keys.json").stat().st_ino == before


SECRET, OTHER = b"s" * 32, b"o" * 32


def sealing(*secrets):
    return Sealing(Seal(secrets or (SECRET,)))


FORGED = '{"id":"key_forged","sha256":"' + digest("tm-forged") + '","workspace":"acme","created_at":1}'


async def test_without_a_secret_whoever_writes_redis_adds_a_key(server, node):
    """The risk docs/operations.md names, and the reason for `auth.shared_secret_env`."""
    await server.command("HSET", KEYS, "key_forged", FORGED)
    ring = node("a")
    await exchange(server, ring)
    assert ring.in_force().find("tm-forged").workspace == "acme"


async def test_with_a_secret_a_key_that_no_node_made_opens_nothing(server, node, caplog):
    a, sealed = node("a"), sealing()
    _, secret = a.create("acme")
    await server.command("HSET", KEYS, "key_forged", FORGED)
    for _ in range(3):
        await exchange(server, a, sealed)
    assert a.in_force().find("tm-forged") is None and a.in_force().find(secret) is not None
    assert caplog.text.count("b'key_forged' that is not sealed with the shared secret") == 1
    assert "forged" not in (await server.command("HGET", KEYS, a.listing()[0].id)).decode()


async def test_nodes_with_one_secret_share_their_keys_and_with_two_they_do_not(server, node):
    a, b, c = node("a"), node("b"), node("c")
    key, secret = a.create("acme", models=["gpt-*"])
    await exchange(server, a, sealing())
    await exchange(server, b, sealing())
    assert b.in_force().find(secret) == key
    await exchange(server, c, sealing(OTHER))
    assert c.in_force().find(secret) is None
    b.revoke(key.id)
    for ring in (b, a):
        await exchange(server, ring, sealing())
    assert a.in_force().find(secret) is None


@pytest.mark.parametrize("change", ["workspace", "models", "name", "place"])
async def test_a_sealed_key_cannot_be_changed_in_redis(server, node, change):
    a, b = node("a"), node("b")
    key, secret = a.create("acme", models=["gpt-4o"], name="n")
    await exchange(server, a, sealing())
    value = await server.command("HGET", KEYS, key.id)
    new = {"workspace": (b"acme", b"beta"), "models": (b"gpt-4o", b"*"), "name": (b'"n"', b'"m"'), "place": (b"", b"")}
    name = "key_other" if change == "place" else key.id
    await server.command("DEL", KEYS)
    await server.command("HSET", KEYS, name, value.replace(*new[change]))
    await exchange(server, b, sealing())
    assert b.in_force().find(secret) is None
    await exchange(server, a, sealing())  # its own file has it as it was made: that is what Redis has again
    await exchange(server, b, sealing())
    assert b.in_force().find(secret) == key


async def test_keys_made_before_there_was_a_secret_are_sealed_by_the_node_that_has_them(server, node):
    a, b = node("a"), node("b")
    key, secret = a.create("acme")
    await exchange(server, a)
    await exchange(server, b, sealing())
    assert b.in_force().find(secret) is None
    await exchange(server, a, sealing())
    await exchange(server, b, sealing())
    assert b.in_force().find(secret) == key


async def test_a_secret_can_be_exchanged_node_by_node(server, node):
    a, b = node("a"), node("b")
    key, secret = a.create("acme")
    await exchange(server, a, sealing(SECRET))
    await exchange(server, b, sealing(OTHER, SECRET))  # takes the old one, and seals anew
    assert b.in_force().find(secret) == key
    await exchange(server, node("c"), sealing(OTHER))
    assert node("c").in_force().find(secret) == key


async def test_budgets_are_sealed_as_keys_are(server, tmp_path):
    await server.command("DEL", BUDGETS)

    def ring(name):
        (tmp_path / name).mkdir(exist_ok=True)
        return BudgetStore(tmp_path / name, now_us=lambda: 7, random=secrets.token_bytes)

    a, b = ring("a"), ring("b")
    made = a.create("acme", 1_000, unit="usd", period="month", mode="hard")
    await exchange(server, a, sealing())
    forged = msgspec.json.encode(msgspec.structs.replace(made, ended_at=8))  # would lift the limit
    await server.command("HSET", BUDGETS, made.id, forged)
    await exchange(server, a, sealing())
    await exchange(server, b, sealing())
    assert [each.id for each in a.listing()] == [each.id for each in b.listing()] == [made.id]
    await server.command("DEL", BUDGETS)


async def test_what_is_not_new_is_not_read_again(server, node, valkey_url):
    a, b, clock = node("a"), node("b"), [100.0]
    seen_a, seen_b = Seen(lambda: clock[0]), Seen(lambda: clock[0])
    sealed = sealing()

    async def readings():
        told = await server.command("INFO", "commandstats")
        return int(told.get("cmdstat_hgetall", {}).get("calls", 0))

    async def both():
        before = await readings()
        await exchange(server, a, sealed, seen_a)
        await exchange(server, b, sealed, seen_b)
        return await readings() - before

    assert await both() == 2
    assert await both() == 0
    _, secret = a.create("acme")
    assert await both() == 2 and b.in_force().find(secret)  # a's file is another, then Redis says so
    assert await both() == 1  # a reads what it wrote itself
    assert await both() == 0
    b.revoke(b.listing()[0].id)
    await both()
    await both()
    assert a.in_force().find(secret) is None and await both() == 0
    await server.command("DEL", KEYS, f"tm:{{{KEYS}}}:version")  # Redis lost everything
    assert await both() >= 1 and len(await server.command("HGETALL", KEYS)) == 1
    await both()
    assert await both() == 0
    sealed = sealing()
    assert await both() == 2  # the settings are others
    assert await both() == 0
    clock[0] += WHOLE_S
    assert await both() == 2
