"""The table of how calls end: what it has a row for, and what holds of every row."""

from itertools import product

from taximeter.core.record import Outcome
from taximeter.gateway.ends import (
    ASKING,
    DELIVERED,
    ENDED,
    ENDS,
    HELD,
    PASSING,
    UPLOADING,
    WAITING,
    By,
    Shown,
    State,
    Told,
    Use,
)

BEFORE_THE_ANSWER = {ASKING, UPLOADING, WAITING}
WITH_THE_CLIENT = {PASSING, DELIVERED}
CANNOT_BE = {
    # nothing has been asked of the upstream
    (ASKING, By.FAILED),
    # there is no answer, or it is complete already
    *product(BEFORE_THE_ANSWER | {ENDED}, [By.COMPLETE]),
    # the journal is waited for before anything leaves, and before an answer ends
    *product([UPLOADING, WAITING, ENDED], [By.UNWRITTEN]),
    # all of it has come
    *product([ENDED], [By.REFUSED, By.FAILED]),
}


def test_every_end_of_a_call_is_a_row_or_cannot_be():
    assert set(product(State, By)) == ENDS.keys() | CANNOT_BE
    assert not ENDS.keys() & CANNOT_BE


def test_an_error_is_shown_only_where_no_answer_was_begun_and_a_cut_only_where_one_was():
    assert {state for (state, _), end in ENDS.items() if end.shown is Shown.CUT} == WITH_THE_CLIENT
    assert {state for (state, _), end in ENDS.items() if end.shown is Shown.ERROR} == BEFORE_THE_ANSWER | {HELD}


def test_only_what_has_come_is_counted_and_nothing_is_once_the_process_ends():
    assert not {state for (state, _), end in ENDS.items() if end.use is Use.COUNTED} & BEFORE_THE_ANSWER
    assert {end.use for (_, by), end in ENDS.items() if by is By.STOPPED} == {Use.KNOWN}


def test_who_left_or_is_not_there_any_more_is_shown_nothing():
    assert {end.shown for (_, by), end in ENDS.items() if by in (By.LEFT, By.STOPPED)} == {Shown.NOTHING}


def test_an_outcome_is_told_by_the_status_only_where_there_is_one():
    assert not {state for (state, _), end in ENDS.items() if end.outcome is Told.BY_STATUS} & BEFORE_THE_ANSWER
    assert Outcome.OK not in {end.outcome for end in ENDS.values()}
