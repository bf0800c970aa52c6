"""Bodies of every kind read to the end, or refused; never let through unread."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib

import brotli
import pytest
from backports.zstd import compress as zstd
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.errors import BadRequest, PayloadTooLarge
from taximeter.gateway.bounds.readable import FORM_PARTS, read
from taximeter.gateway.bounds.rules import AUDIO_BYTES_PER_S

LIMIT = 100_000
ASKED = {"model": "m", "x": "é"}
JSON = json.dumps(ASKED).encode()


def deflated(data):
    return zlib.compress(data, wbits=-15)


CODINGS = {b"gzip": gzip.compress, b"deflate": zlib.compress, b"br": brotli.compress, b"zstd": zstd, b"identity": bytes}


def reading(body, kind=b"application/json", *codings, limit=LIMIT):
    headers = [(b"content-type", kind)] if kind is not None else []
    headers += [(b"content-encoding", coding) for coding in codings]
    return json.loads(read(headers, body, limit))


@pytest.mark.parametrize(
    "kind",
    [b"application/json", b"application/json; charset=UTF-8", b"text/plain", b"text/json", b"application/vnd.api+json",
     b"application/octet-stream", b"", None, b'APPLICATION/JSON;charset="utf-8"'],
)  # fmt: skip
def test_json_is_read_under_any_type_that_servers_read_it_under(kind):
    assert reading(JSON, kind) == ASKED


@given(st.lists(st.sampled_from(sorted(CODINGS)), max_size=3), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_codings_are_undone_in_the_order_in_which_they_were_laid_on(codings, encoding):
    body = json.dumps(ASKED).encode(encoding)
    for coding in codings:
        body = CODINGS[coding](body)
    assert reading(body, b"application/json", *([b", ".join(codings)] if codings else [])) == ASKED


def test_deflate_is_read_with_and_without_its_head():
    assert reading(deflated(JSON), b"application/json", b"DEFLATE") == ASKED


@pytest.mark.parametrize("coding", sorted(set(CODINGS) - {b"identity"}))
def test_a_bomb_is_refused(coding):
    with pytest.raises(PayloadTooLarge):
        reading(CODINGS[coding](b" " * 50_000_000), b"application/json", coding)


@pytest.mark.parametrize(
    ("kind", "codings", "body", "why"),
    [
        (b"application/json", [b"gzip"], JSON, "cannot be undone"),
        (b"application/json", [b"compress"], JSON, "content-encoding is compress"),
        (b"application/json", [b"gzip, gzip, gzip, gzip"], JSON, "too many"),
        (b"application/json", [b"identity", b"gzip"], JSON, "two content-encoding"),
        (b"application/json; charset=utf-7", [], JSON, "charset is utf-7"),
        (b"application/json; charset=utf-16", [], JSON, "charset is utf-16"),
        (b"application/x-www-form-urlencoded", [], JSON, "content-type is application/x-www-form-urlencoded"),
        (b"application/yaml", [], JSON, "content-type is application/yaml"),
        (b"application/msgpack", [], b"\x81", "content-type"),
        (b"application/json; charset=utf-8; charset=utf-7", [], JSON, "charset is utf-7"),
        (b"application/json; charset*=us-ascii''utf-7", [], JSON, "charset is us-ascii''utf-7"),
        (b"multipart/form-data; boundary=a; boundary=b", [], JSON, "no boundary that all"),
        (b'multipart/form-data; x="; boundary=a; "; boundary=b', [], JSON, "no boundary that all"),
        (b"multipart/form-data; boundary=a; boundary*=us-ascii''b", [], JSON, "no boundary that all"),
        (b'multipart/form-data; boundary="a; boundary=b"', [], JSON, "no boundary that all"),
        (b"multipart/form-data", [], JSON, "no boundary"),
        (b"multipart/form-data; boundary=b", [], JSON, "form cannot be read"),
        (b"text/plain", [], b"model=m", "not JSON"),
    ],
)
def test_what_cannot_be_read_is_refused_and_says_why(kind, codings, body, why):
    with pytest.raises(BadRequest, match=why) as caught:
        reading(body, kind, *codings)
    assert "Send JSON in UTF-8" in caught.value.message


@pytest.mark.parametrize("name", [b"x-http-method-override", b"x-original-url"])
def test_a_header_that_changes_the_request_is_refused(name):
    with pytest.raises(BadRequest, match=name.decode()):
        read([(name, b"/v1/x")], JSON, LIMIT)


def form(*parts, boundary="b"):
    lines = []
    for name, value, *more in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"' + "".join(more) + "\r\n\r\n"
        lines.append(head.encode() + value + b"\r\n")
    return b"".join(lines) + f"--{boundary}--\r\n".encode()


def test_a_form_is_read_as_its_fields():
    body = form(
        ("model", b"whisper-1"), ("n", b"2"), ("file", b"x" * 5_000, '; filename="a.mp3"'), ("t[]", b"a"), ("t[]", b"b")
    )
    assert reading(body, b'multipart/form-data; boundary="b"') == {
        "model": "whisper-1", "n": "2", "file": {"bytes": 5_000, "bytes_per_s": 50, "name": "a.mp3"}, "t[]": ["a", "b"],
    }  # fmt: skip
    assert reading(form(("model", b"a"), ("model", b"b")), b"multipart/form-data; boundary=b") == {"model": ["a", "b"]}


def test_a_form_that_is_cut_or_has_too_many_parts_is_refused():
    whole = form(("model", b"a"), ("x", b"y"))
    for body in (whole[:-4], whole[: len(whole) // 2], form(*[("x", b"y")] * (FORM_PARTS + 1))):
        with pytest.raises(BadRequest):
            reading(body, b"multipart/form-data; boundary=b")


@pytest.mark.parametrize(
    "kind",
    [b"multipart/form-data; boundary=b", b"multipart/form-data;boundary=b;", b'Multipart/Form-Data ; boundary="b" ',
     b"multipart/form-data; charset=utf-8; boundary=b", b'multipart/form-data; boundary=b; charset="UTF-8"'],
)  # fmt: skip
def test_a_forms_type_as_clients_write_it_is_read(kind):
    assert reading(form(("model", b"a")), kind) == {"model": "a"}


OTHER = form(("model", b"dear"), boundary="c")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"multipart/form-data; boundary=b; boundary=c", form(("model", b"a"))),
        (b"multipart/form-data; boundary=c; boundary=b", form(("model", b"a"))),
        (b"multipart/form-data; boundary=c, multipart/form-data; boundary=b", form(("model", b"a"))),
        (b"multipart/form-data; boundary*=utf-8''c; boundary=b", form(("model", b"a"))),
        (b"multipart/form-data; x=y; boundary=b", form(("model", b"a"))),
        (b"multipart/form-data; boundary=b", OTHER + form(("model", b"a"))),
        (b"multipart/form-data; boundary=b", form(("model", b"a")) + OTHER),
        (b"multipart/form-data; boundary=b", form(("_charset_", b"utf-16"), ("model", b"a"))),
        (b"application/json; charset=utf-8; charset=utf-7", b'{"model":"a"}'),
        (b"multipart/form-data; boundary=b; charset=utf-8; charset=utf-7", form(("model", b"a"))),
    ],
)
def test_what_two_servers_could_read_as_two_requests_is_refused(kind, body):
    with pytest.raises(BadRequest, match="must be readable here"):
        reading(body, kind)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (form(("model", b"a"), ("prompt", b'x\n--b\nContent-Disposition: form-data; name="model"\n\no3')), "is none"),
        (form(("model", b"a"), ("prompt", b'x\r--b\rContent-Disposition: form-data; name="model"\r\ro3')), "is none"),
        (form(("model", b"a")) + form(("model", b"o3")), "is none"),
        (form(("model", b"a"), ('model"; name="x', b"o3")), "two names"),
        (form(("x", b"a", "; name*=utf-8''model")), "two names"),
        (form(("x", b"a", '\r\nContent-Disposition: form-data; name="model"')), "two names"),
    ],
)
def test_a_form_that_some_servers_split_otherwise_is_refused(body, why):
    with pytest.raises(BadRequest, match=why):
        reading(body, b"multipart/form-data; boundary=b")


def test_a_boundary_may_say_that_it_is_one():
    body = form(("model", b"a"), ("file", b"RIFF", '; filename="name=x.wav"'), boundary="----WebKitFormBoundary7=")
    read_as = reading(body, b'multipart/form-data; boundary="----WebKitFormBoundary7="')
    assert read_as == {"model": "a", "file": {"bytes": 4, "bytes_per_s": AUDIO_BYTES_PER_S, "name": "name=x.wav"}}


@given(st.binary(max_size=100), st.sampled_from([b"multipart/form-data; boundary=b", b"text/plain", None]))
def test_any_bytes_are_read_or_refused(body, kind):
    with contextlib.suppress(BadRequest, PayloadTooLarge):
        json.loads(read([(b"content-type", kind)] if kind else [], body, LIMIT))
