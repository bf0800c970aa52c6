import pytest

from taximeter.config import Auth
from taximeter.control.keyring import KeyRing
from taximeter.control.keysync import KEYS, exchange
from taximeter.keyfile import KeyFile
from taximeter.sinks.redis_client import RedisServer


@pytest.fixture
async def server(valkey_url):
    redis = RedisServer(valkey_url)
    await redis.command("DEL", KEYS)
    yield redis
    await redis.command("DEL", KEYS)
    await redis.close()


@pytest.fixture
def node(tmp_path):
    """`node("a")`: the key ring of a node with a data directory of its own."""
    moments = iter(range(1, 1_000))

    def start(name):
        (tmp_path / name).mkdir(exist_ok=True)
        random = (bytes([ord(name), next(moments)]) * 16 for _ in iter(int, 1))
        return KeyRing(
            KeyFile(tmp_path / name), Auth(), now_us=lambda: next(moments), random=lambda n: next(random)[:n]
        )

    return start


async def test_a_key_made_on_one_node_opens_and_ends_on_all(server, node):
    a, b = node("a"), node("b")
    key, secret = a.create("acme", name="shared", models=["gpt-*"])
    await exchange(server, a)
    await exchange(server, b)
    assert b.keys().find(secret) == key
    b.revoke(key.id)
    await exchange(server, a)  # knows nothing of it yet
    await exchange(server, b)
    await exchange(server, a)
    assert a.keys().find(secret) is None and a.listing() == b.listing()


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
    assert b.keys().find(secret) is None


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
