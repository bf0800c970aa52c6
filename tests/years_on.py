"""A pytest plugin for a run under libfaketime, which makes `time.sleep` fail on Python 3.11 and later (EINVAL).

It takes the absolute time on the monotonic clock that Python sleeps until for one that it has moved.
"""

import select
import time


def sleep(seconds: float, /) -> None:
    select.select([], [], [], seconds)


time.sleep = sleep  # type: ignore[assignment]  # takes floats only
