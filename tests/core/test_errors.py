"""What a client is answered: OpenAI's shape, and the headers that steer its retries."""

import json

from taximeter.core.errors import BadRequest, BudgetExceeded, JournalUnavailable, MethodNotAllowed, RateLimited


def test_the_body_has_openais_shape():
    body = json.loads(BadRequest("No such path.", param="path").body())
    assert body == {
        "error": {"message": "No such path.", "type": "invalid_request_error", "param": "path", "code": "bad_request"}
    }


def test_the_headers_say_the_length_the_code_and_whether_to_try_again():
    error = BudgetExceeded("é")
    headers = dict(error.headers())
    assert headers == {
        b"content-type": b"application/json",
        b"content-length": str(len(error.body())).encode(),
        b"x-taximeter-error": b"insufficient_quota",
        b"x-should-retry": b"false",
    }
    assert len(error.body()) > len(error.body().decode())  # bytes, not characters


def test_a_limit_says_after_how_many_seconds():
    headers = dict(RateLimited("Slowly.", retry_after_s=3).headers())
    assert (headers[b"retry-after"], headers[b"x-should-retry"]) == (b"3", b"true")


def test_where_nothing_is_known_of_a_retry_nothing_is_said_of_it():
    assert {b"retry-after", b"x-should-retry"}.isdisjoint(dict(BadRequest("Odd.").headers()))


def test_a_refused_method_names_those_there_are():
    error = MethodNotAllowed("Not served.", allowed=b"GET, HEAD")
    assert (error.status, dict(error.headers())[b"allow"]) == (405, b"GET, HEAD")


def test_a_journal_that_cannot_be_written_says_that_nothing_was_sent():
    assert b"nothing was sent" in JournalUnavailable().body()
