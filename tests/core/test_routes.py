import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core import routes
from taximeter.core.errors import BadRequest, BadTag, RequestError
from taximeter.core.routes import Route, spellings

tag = st.from_regex(rb"[A-Za-z0-9._:@-]{1,40}", fullmatch=True).filter(lambda t: b".." not in t)


def test_a_plain_path_is_left_as_it_is():
    assert routes.resolve(b"/v1/chat/completions") == Route(path=b"/v1/chat/completions")


def test_all_tags_in_order():
    route = routes.resolve(b"/w/acme/t/upload_1/d/doc-9/k/extract/u/local/v1/embeddings")
    assert route == Route(
        path=b"/v1/embeddings",
        tags={"workspace": "acme", "track": "upload_1", "document": "doc-9", "task": "extract"},
        upstream="local",
    )


@pytest.mark.parametrize(
    ("path", "left"),
    [
        (b"/t/x/w/acme/v1/models", b"/w/acme/v1/models"),  # out of order: not ours any more
        (b"/w", b"/w"),
        (b"/wide/v1", b"/wide/v1"),
        (b"/w/acme", b"/"),
        (b"/v1//chat", b"/v1//chat"),
        (b"/openai/deployments/a%20b/chat/completions", b"/openai/deployments/a%20b/chat/completions"),
    ],
)
def test_what_is_not_a_tag_stays_in_the_path(path, left):
    assert routes.resolve(path).path == left


@given(st.lists(tag, min_size=4, max_size=4), st.sampled_from([b"/v1/chat/completions", b"/api/chat", b"/"]))
def test_tags_and_rest_come_back_as_they_were_put_in(values, rest):
    w, t, d, k = values
    route = routes.resolve(b"/w/" + w + b"/t/" + t + b"/d/" + d + b"/k/" + k + rest)
    assert route.path == rest
    assert route.tags == {"workspace": w.decode(), "track": t.decode(), "document": d.decode(), "task": k.decode()}


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/../admin",
        b"/v1/%2e%2e/admin",
        b"/v1/..%2fadmin",
        b"/v1/%2E%2E%2Fadmin",
        b"/w/acme/..",
        b"/..",
        b"/v1/x/..\\y",
        b"/v1\\..\\admin",
        b"/v1\\..",
        b"/v1%5c..%5cadmin",
        b"/v1%5C%2e%2e",
        b"/v1\\%2E%2e/admin",
        b"/v1/..;/admin",
        b"/v1/..;a=b/admin",
        b"/v1/..%3b/admin",
        b"/v1/ x",
        b"/v1/\x00",
        b"v1/x",
        b"/v1/x#y",
    ],
)
def test_a_path_that_could_leave_the_upstreams_base_is_refused(path):
    with pytest.raises(BadRequest):
        routes.resolve(path)


@pytest.mark.parametrize("path", [b"/w/a%20b/v1", b"/w//v1", b"/t/" + b"x" * 129 + b"/v1", b"/w/\xc3\xa4/v1"])
def test_a_bad_tag_is_named_in_the_error(path):
    with pytest.raises(BadTag) as caught:
        routes.resolve(path)
    assert "path /" in caught.value.message


@given(st.binary(max_size=80))
def test_any_bytes_resolve_or_are_refused(path):
    try:
        route = routes.resolve(b"/" + path)
    except RequestError:
        return
    assert route.path.startswith(b"/")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (b"/v1/chat/completions", (b"/v1/chat/completions",)),
        (b"//v1//chat/completions//", (b"/v1/chat/completions",)),
        (b"/v1/./chat/./completions/.", (b"/v1/chat/completions",)),
        (b"/v1/chat;jsessionid=1/completions;x", (b"/v1/chat/completions",)),
        (b"/v1/ch%61t/completions", (b"/v1/chat/completions", b"/v1/chat/completions")),
        (b"/v1/chat%252fcompletions", (b"/v1/chat/completions", b"/v1/chat%2Fcompletions")),
        (b"/model/a%3Ab%2Fc/invoke", (b"/model/a:b/c/invoke", b"/model/a:b%2Fc/invoke")),
        (b"/", (b"",)),
        (b"/v1\\chat\\completions", (b"/v1/chat/completions",)),
        (b"\\v1/chat%5ccompletions\\", (b"/v1/chat/completions", b"/v1/chat/completions")),
    ],
)
def test_a_path_is_understood_as_servers_match_it(path, meant):
    assert spellings(path) == meant
