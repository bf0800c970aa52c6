import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.control.answers import buckets
from taximeter.control.answers.buckets import USAGE_WIDTHS
from taximeter.core.errors import BadRequest


@given(
    start=st.integers(0, 2_000_000_000),
    length=st.integers(1, 500_000),
    width=st.sampled_from(sorted(USAGE_WIDTHS)),
    limit=st.integers(1, 31),
)
def test_pages_cover_the_range_once_in_buckets_cut_at_whole_widths(start, length, width, limit):
    end, cursor, seen = start + length, None, []
    seconds = USAGE_WIDTHS[width].seconds
    for _ in range(20):  # enough pages to see it; a long range has more
        page = buckets.page(start, end, USAGE_WIDTHS, width, limit, cursor)
        cut = list(page.buckets())
        assert 1 <= len(cut) <= limit and (cut[0][0], cut[-1][1]) == (page.from_s, page.to_s)
        seen += cut
        cursor = page.next_page
        if cursor is None:
            assert seen[-1][1] == end
            break
    assert seen[0][0] == start
    assert all(before[1] == after[0] for before, after in itertools.pairwise(seen))
    assert all(bound % seconds == 0 for bucket in seen[1:] for bound in bucket[:1])
    assert all(0 < stop - begin <= seconds for begin, stop in seen)


@pytest.mark.parametrize("cursor", ["", "x", "page_", "page_%%%", "page_bm8", "book_MTA", "page_LTE"])
def test_a_cursor_of_something_else_is_refused(cursor):
    with pytest.raises(BadRequest):
        buckets.page(0, 100, USAGE_WIDTHS, "1m", None, cursor)
