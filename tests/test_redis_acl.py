"""The ACL of docs/operations.md: Taximeter lives with it, and others cannot write what it trusts."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
import requests

from fuzz.running import ADMIN, running_node
from taximeter.node.embedded_valkey import EmbeddedValkey
from waits import until

PAGE = Path(__file__).parents[1] / "docs/operations.md"
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def server(tmp_path):
    """(url of a user and password, an admin's client) of a Redis with the page's users."""
    (tmp_path / "valkey").mkdir()
    valkey = EmbeddedValkey(tmp_path / "valkey")
    first = valkey.start()
    admin = redis.Redis.from_url(first, decode_responses=True)
    lines = re.findall(r"(?m)^ACL SETUSER .*$", PAGE.read_text())
    assert [line.split()[2] for line in lines] == ["taximeter", "viewer", "app", "default"]
    for line in lines[:-1]:
        assert admin.execute_command(*line.split())
    place = urlsplit(first)

    def url(user, password):
        return f"redis://{user}:{password}@{place.hostname}:{place.port}/0"

    try:
        yield url, admin
    finally:
        admin.close()
        valkey.stop()


@pytest.mark.xdist_group("processes")
def test_taximeter_lives_with_its_rights_and_nobody_else_writes_keys(tmp_path, server):
    url, admin = server
    environ = {
        "TAXIMETER_REDIS__URL": url("taximeter", "PASSWORD"),
        "TAXIMETER_AUTH__SHARED_SECRET_ENV": "SHARED",
        "SHARED": SECRET,
    }
    admin.hset("tm:keys", "key_forged", '{"id":"key_forged","sha256":"' + "0" * 64 + '","workspace":"acme"}')
    with running_node(tmp_path, **environ) as (node, base):
        made = requests.post(f"{base}/keys", json={"workspace": "acme"}, headers=ADMIN, timeout=30).json()
        budget = requests.post(f"{base}/budgets", json={"workspace": "acme", "limit": 5}, headers=ADMIN, timeout=30)
        assert budget.status_code == 201 and budget.json()["spent"] is not None, budget.text
        until(lambda: admin.hget("tm:{acme}:total", "requests") == "25", "the counters")
        sealed = until(lambda: admin.hget("tm:keys", made["id"]), "the key in Redis")
        assert re.search(r',"mac":"[0-9a-f]{64}"}$', sealed)
        until(lambda: "b'key_forged' that is not sealed" in node.log, "word of the forged key")
        listed = requests.get(f"{base}/keys", headers=ADMIN, timeout=30).json()["data"]
        assert [each["id"] for each in listed] == [made["id"]]
        ready = until(
            lambda: (answer := requests.get(f"{base}/readyz", headers=ADMIN, timeout=30)).ok and answer, "readiness"
        )
        assert ready.json() == {"ready": True, "problems": [], "warnings": []} and "NOPERM" not in node.log
    for user, password in (("viewer", "OTHER"), ("app", "THIRD")):
        with redis.Redis.from_url(url(user, password)) as other, pytest.raises(redis.exceptions.NoPermissionError):
            other.hset("tm:keys", "key_mine", "{}")
    with redis.Redis.from_url(url("viewer", "OTHER")) as viewer:
        assert viewer.hget("tm:{acme}:total", "requests") == b"25"
