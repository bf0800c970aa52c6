import msgspec
import pytest

from taximeter.core.errors import BadRequest, Forbidden, Unauthorized
from taximeter.core.hosts import Hosts
from taximeter.flavors.meter import Demand
from taximeter.gateway import restricted
from taximeter.gateway.admission.admission import Admission
from taximeter.keys.rule import Keys, ProxyKey, digest

SECRET = b"tm-" + b"a" * 64
KEY = ProxyKey(id="k1", sha256=digest(SECRET), workspace="acme", models=("gpt-4o*",))


def gate(*, required=True):
    return Admission(Keys([KEY]), Hosts(), required=required)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"authorization", b"Bearer " + SECRET),
        (b"authorization", b"bearer " + SECRET),
        (b"x-api-key", SECRET),
        (b"api-key", SECRET),
        (b"x-goog-api-key", SECRET),
        (b"x-taximeter-key", SECRET),
    ],
)
def test_a_key_is_found_wherever_a_client_can_put_it(header, value):
    assert gate().key_of({b"host": b"localhost", header: value}) is KEY


def test_a_key_in_its_own_header_stands_beside_the_clients_credential():
    assert gate().key_of({b"authorization": b"Bearer sk-own", b"x-taximeter-key": SECRET}) is KEY


def test_no_key_where_one_is_required():
    with pytest.raises(Unauthorized) as caught:
        gate().key_of({b"authorization": b"Bearer sk-own"})
    assert "proxy key is required" in caught.value.message


def test_no_key_where_none_is_required():
    assert gate(required=False).key_of({b"authorization": b"Bearer sk-own"}) is None


@pytest.mark.parametrize("required", [True, False])
def test_an_unknown_proxy_key_is_refused_in_either_mode(required):
    with pytest.raises(Unauthorized):
        gate(required=required).key_of({b"authorization": b"Bearer tm-" + b"b" * 64})


def test_an_expired_key_is_refused_with_when_and_what_to_do():
    ended = Admission(
        Keys([msgspec.structs.replace(KEY, expires_at=1_793_707_200_000_000)], 2**60), Hosts(), required=True
    )
    with pytest.raises(Unauthorized, match=r"expired at 2026-11-03T12:00:00Z\. Ask for a new one"):
        ended.key_of({b"authorization": b"Bearer " + SECRET})


def test_a_key_calls_only_its_models():
    def admit(*models, key=KEY, free=False, headers=(), **more):
        restricted.admit(key, Demand(models=models, **more), list(headers), b"/v1/chat/completions", free=free)

    admit("gpt-4o-mini")
    admit("gpt-4o-mini", "gpt-4o")
    admit(free=True)
    admit("o3", key=None)
    for refused in (("o3",), ("gpt-4o-mini", "o3"), (), ("gpt-4o\0",), ("gpt-4o/../o3",)):
        with pytest.raises(Forbidden):
            admit(*refused)
    with pytest.raises(Forbidden):
        admit("o3", free=True)
    with pytest.raises(Forbidden, match="cannot be held to them: a batch"):
        admit("gpt-4o-mini", endless=("a batch",))
    with pytest.raises(BadRequest):
        admit("gpt-4o-mini", headers=[(b"x-portkey-config", b"pc-1")])
