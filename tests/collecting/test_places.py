"""Where what is billed later is fetched, and how often."""

import pytest

from ledger import call
from taximeter.collecting.pace import FIRST_S, LONGEST_S, REFUSED_S, Pace
from taximeter.collecting.places import headers_of, of_file, of_object
from taximeter.flavors.told import Place, What, place_of


@pytest.mark.parametrize(
    ("provider", "api", "name", "path"),
    [
        ("openai", "responses", "resp_1", b"/v1/responses/resp_1"),
        ("openai", "other", "batch_1", b"/v1/batches/batch_1"),
        ("groq", "other", "batch_1", b"/v1/batches/batch_1"),
        ("openai", "other", "video_1", b"/v1/videos/video_1"),
        ("openai", "other", "../../admin", b"/v1/batches/..%2F..%2Fadmin"),
        ("anthropic", "other", "msgbatch_1", b"/v1/messages/batches/msgbatch_1"),
        ("mistral", "other", "j-1", b"/v1/batch/jobs/j-1"),
        ("cohere", "other", "ej", b"/v1/embed-jobs/ej"),
        ("google", "other", "batches/1", b"/v1beta/batches/1"),
        ("google", "other", "models/veo/operations/o", b"/v1beta/models/veo/operations/o"),
        ("google-vertex", "other", "projects/p", None),
        ("openai", "evals", "evalrun_1", None),
        ("azure", "other", "task_1", None),
        ("xai", "other", "d97415a1", None),
        ("openai", "other", None, None),
    ],
)
def test_an_object_is_fetched_where_its_provider_has_it(provider, api, name, path):
    asked = call(provider=provider, api=api, deferred=name)
    assert of_object(asked) == path
    place = None if path is None else place_of(path)
    assert place is None or place.what is What.OBJECT


@pytest.mark.parametrize(
    ("provider", "file", "path", "place"),
    [
        ("openai", "file-1", b"/v1/files/file-1/content", Place(What.FILE, "file-1")),
        ("google", "f1", b"/download/v1beta/files/f1:download?alt=media", Place(What.FILE, "f1")),
        ("anthropic", "m1/results", b"/v1/messages/batches/m1/results", Place(What.LINES, "m1")),
    ],
)
def test_files_of_results_are_fetched_where_they_are_read(provider, file, path, place):
    asked = call(provider=provider)
    assert of_file(asked, file) == path and place_of(path) == place
    assert bool(headers_of(asked)) is (provider == "anthropic")


def test_what_goes_on_is_asked_ever_more_seldom_and_what_refuses_is_left_alone():
    pace, now_s = Pace(), 0.0
    waits: list[float] = []
    while len(waits) < 10:
        assert pace.due("a", now_s)
        pace.later("a", now_s)
        asked_s = now_s
        while not pace.due("a", now_s):
            now_s += FIRST_S
        waits.append(now_s - asked_s)
    assert waits[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S] and waits[-1] == LONGEST_S
    pace.later("u", 0.0, REFUSED_S, 500.0)
    assert (pace.due("u", 499.0), pace.due("u", 500.0)) == (False, True)
    pace.soon("u")
    assert pace.due("u", 0.0)
    pace.keep(["b"])
    assert pace.due("a", 0.0)
