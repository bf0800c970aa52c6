import pytest

from taximeter.core import tags
from taximeter.core.errors import BadTag, Forbidden
from taximeter.core.record import Open, Operation
from taximeter.core.tags import Tags


def test_headers_win_over_path_over_weak_over_default():
    resolved = tags.resolve(
        key_workspace=None,
        headers={"workspace": "h"},
        path={"workspace": "p", "track": "p-track"},
        weak={"track": "weak", "task": "weak-task"},
        upstream_workspace="u",
    )
    assert resolved == Tags(workspace="h", track="p-track", task="weak-task")


def test_the_keys_workspace_is_the_strongest():
    assert tags.resolve(key_workspace="k", headers={}, path={}, weak={"workspace": "other"}).workspace == "k"
    assert tags.resolve(key_workspace="k", headers={"workspace": "k"}, path={}).workspace == "k"


@pytest.mark.parametrize("source", ["headers", "path"])
def test_another_workspace_than_the_keys_is_forbidden(source):
    named: dict[str, dict[str, str]] = {"headers": {}, "path": {}, source: {"workspace": "other"}}
    with pytest.raises(Forbidden):
        tags.resolve(key_workspace="k", headers=named["headers"], path=named["path"])


def test_defaults_when_nobody_says_anything():
    assert tags.resolve(key_workspace=None, headers={}, path={}, upstream_workspace="u") == Tags(workspace="u")
    assert tags.resolve(key_workspace=None, headers={}, path={}) == Tags(workspace="default")


def test_a_bad_tag_from_baggage_or_body_is_ignored_and_noted():
    resolved = tags.resolve(key_workspace=None, headers={}, path={}, weak={"workspace": "a b", "track": 7, "task": "t"})
    assert resolved == Tags(workspace="default", task="t", notes=("workspace", "track"))


@pytest.mark.parametrize("value", [b"", b" ", b"a b", b"x" * 129, b"\xff", b"{x}", b"a\n"])
def test_a_bad_tag_of_ours_is_an_error_that_says_where(value):
    with pytest.raises(BadTag) as caught:
        tags.parse(value, "header x-workspace")
    assert "header x-workspace" in caught.value.message
    assert caught.value.status == 400


@pytest.mark.parametrize("value", [b"a", b"x" * 128, b"A.b_c:d@e-9"])
def test_good_tags(value):
    assert tags.parse(value, "header x-workspace") == value.decode()


def test_the_strongest_header_that_says_anything_names_a_tag():
    names = {b"x-track": "track", b"x-chat-id": "track", b"x-task": "task"}
    assert tags.from_headers({b"x-chat-id": b"c1", b"x-track": b"t1"}, names) == {"track": "t1"}
    assert tags.from_headers({b"x-chat-id": b"c1", b"x-track": b""}, names) == {"track": "c1"}
    assert tags.from_headers({b"accept": b"a b"}, names) == {}
    with pytest.raises(BadTag, match="header x-task"):
        tags.from_headers({b"x-task": b"a b"}, names)


def test_of_baggage_only_our_own_members_are_read():
    value = b"taximeter.track=t1 ;ttl=3, userId=x,taximeter.colour=red, taximeter.task=index"
    assert tags.from_baggage(value) == {"track": "t1", "task": "index"}
    assert tags.from_baggage(b"") == {}


@pytest.mark.parametrize(("notes", "kept"), [((), {}), (("track", "task"), {"ignored": "track,task"})])
def test_a_call_is_marked_with_its_tags_and_what_was_ignored(notes, kept):
    call = Open(request_id="r", started_at=0, workspace="", upstream="u", provider="p", api="chat",
                operation=Operation.LLM)  # fmt: skip
    Tags(workspace="w", track="t", document="d", task="k", end_user="e", notes=notes).mark(call)
    assert (call.workspace, call.track, call.document, call.task, call.end_user) == ("w", "t", "d", "k", "e")
    assert call.tags == kept
