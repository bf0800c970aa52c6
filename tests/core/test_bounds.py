from typing import Annotated

import msgspec
import pytest

from taximeter.core.bounds import Count, Tag, types_of


@pytest.mark.parametrize(
    ("kind", "types"),
    [
        (int, (int,)),
        (Count, (int,)),
        (Count | None, (int, type(None))),
        (Annotated[int | Tag | None, msgspec.Meta()], (int, str, type(None))),
    ],
)
def test_a_members_types_are_told_without_their_bounds(kind, types):
    assert set(types_of(kind)) == set(types)
