"""How far a call has come, and every way it can end: `ENDS`. Pure. The usual end, an answer that is complete, is the
main line of `relay`; all others are looked up here.

A call goes through these states from top to bottom, and leaves out some. What the upstream refuses for something we
added is asked again: an attempt of its own, which begins at the top.

    asking      its open line is written; its budgets are asked; nothing has left
    uploading   the client's body goes on to the upstream as it comes
    waiting     all of the request is on its way; there is no answer yet that could be passed on
    held        the answer has begun, and nothing of it is with the client: it goes in one piece, after its record
    passing     the answer's head is with the client; its parts follow, each in the turn in which it comes
    delivered   the answer's own last event is with the client; what ends its framing is still to come
    ended       all of the answer has come and gone on; what nobody reported is being counted

The outcome follows what was delivered: a client that leaves with the last event has all it wanted.

What `ENDS` has no row for cannot be: no upstream fails before it is asked, nothing is refused that has been answered.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from taximeter.core.errors import ClientIdle
from taximeter.core.record import Outcome


class State(Enum):
    """How far a call has come."""

    ASKING = "asking"
    UPLOADING = "uploading"
    WAITING = "waiting"
    HELD = "held"
    PASSING = "passing"
    DELIVERED = "delivered"
    ENDED = "ended"


ASKING, UPLOADING, WAITING, HELD, PASSING, DELIVERED, ENDED = State
"""By themselves: an enum's members are looked up slowly, and a call goes through some of them."""


class By(Enum):
    """What ends it."""

    COMPLETE = "complete"
    """The answer is."""
    REFUSED = "refused"
    """It cannot be sent as it is, or not now."""
    FAILED = "failed"
    """There is no answer, or it ended early."""
    UNWRITTEN = "unwritten"
    """The journal cannot be written, and must not be outrun."""
    LEFT = "left"
    """The client has gone, and the upstream is not waited for."""
    IDLE = "idle"
    """The client is there, but went on neither with its request's body nor with its answer: it has been cut off."""
    STOPPED = "stopped"
    """This process ends: nothing more can be awaited."""


class Use(Enum):
    """What its record says of what it used."""

    KNOWN = "known"
    """What is known this instant."""
    COUNTED = "counted"
    """What nobody reported is counted from what has come."""


class Shown(Enum):
    """What the client gets."""

    ANSWER = "answer"
    ERROR = "error"
    CUT = "cut"
    NOTHING = "nothing"


class Told(Enum):
    """What says how a call went where its end alone does not."""

    BY_STATUS = "by status"
    """The answer's status (and an error in the middle of it): `ok` or `upstream_error`."""
    BY_ERROR = "by error"
    """What the upstream failed with."""


class End(NamedTuple):
    """One way for a call to end."""

    outcome: Outcome | Told
    use: Use
    shown: Shown
    code: str | None = None
    """The record's `error_code`, where no error has one."""


_REFUSED, _LEFT, _STOPPED, _STATUS, _ERROR = (
    Outcome.REFUSED, Outcome.CLIENT_LEFT, Outcome.INTERRUPTED, Told.BY_STATUS, Told.BY_ERROR,
)  # fmt: skip
_IDLE = ClientIdle.code

# fmt: off
ENDS: dict[tuple[State, By], End] = {
    (ASKING,    By.REFUSED):   End(_REFUSED, Use.KNOWN,   Shown.ERROR),
    (ASKING,    By.UNWRITTEN): End(_REFUSED, Use.KNOWN,   Shown.ERROR),
    (ASKING,    By.LEFT):      End(_LEFT,    Use.KNOWN,   Shown.NOTHING),
    (ASKING,    By.IDLE):      End(_LEFT,    Use.KNOWN,   Shown.NOTHING, _IDLE),
    (ASKING,    By.STOPPED):   End(_STOPPED, Use.KNOWN,   Shown.NOTHING),
    (UPLOADING, By.REFUSED):   End(_REFUSED, Use.KNOWN,   Shown.ERROR),
    (UPLOADING, By.FAILED):    End(_ERROR,   Use.KNOWN,   Shown.ERROR),
    (UPLOADING, By.LEFT):      End(_LEFT,    Use.KNOWN,   Shown.NOTHING),
    (UPLOADING, By.IDLE):      End(_LEFT,    Use.KNOWN,   Shown.ERROR,   _IDLE),
    (UPLOADING, By.STOPPED):   End(_STOPPED, Use.KNOWN,   Shown.NOTHING),
    (WAITING,   By.REFUSED):   End(_REFUSED, Use.KNOWN,   Shown.ERROR),
    (WAITING,   By.FAILED):    End(_ERROR,   Use.KNOWN,   Shown.ERROR),
    (WAITING,   By.LEFT):      End(_LEFT,    Use.KNOWN,   Shown.NOTHING),
    (WAITING,   By.IDLE):      End(_LEFT,    Use.KNOWN,   Shown.NOTHING, _IDLE),
    (WAITING,   By.STOPPED):   End(_STOPPED, Use.KNOWN,   Shown.NOTHING),
    (HELD,      By.COMPLETE):  End(_STATUS,  Use.COUNTED, Shown.ANSWER),
    (HELD,      By.REFUSED):   End(_REFUSED, Use.COUNTED, Shown.ERROR),
    (HELD,      By.FAILED):    End(_ERROR,   Use.COUNTED, Shown.ERROR),
    (HELD,      By.UNWRITTEN): End(_STOPPED, Use.KNOWN,   Shown.ERROR),
    (HELD,      By.LEFT):      End(_LEFT,    Use.COUNTED, Shown.NOTHING),
    (HELD,      By.IDLE):      End(_LEFT,    Use.COUNTED, Shown.ERROR,   _IDLE),
    (HELD,      By.STOPPED):   End(_STOPPED, Use.KNOWN,   Shown.NOTHING),
    (PASSING,   By.COMPLETE):  End(_STATUS,  Use.COUNTED, Shown.ANSWER),
    (PASSING,   By.REFUSED):   End(_REFUSED, Use.COUNTED, Shown.CUT),
    (PASSING,   By.FAILED):    End(_ERROR,   Use.COUNTED, Shown.CUT),
    (PASSING,   By.UNWRITTEN): End(_STOPPED, Use.KNOWN,   Shown.CUT),
    (PASSING,   By.LEFT):      End(_LEFT,    Use.COUNTED, Shown.NOTHING),
    (PASSING,   By.IDLE):      End(_LEFT,    Use.COUNTED, Shown.NOTHING, _IDLE),
    (PASSING,   By.STOPPED):   End(_STOPPED, Use.KNOWN,   Shown.NOTHING),
    (DELIVERED, By.COMPLETE):  End(_STATUS,  Use.COUNTED, Shown.ANSWER),
    (DELIVERED, By.REFUSED):   End(_REFUSED, Use.COUNTED, Shown.CUT),
    (DELIVERED, By.FAILED):    End(_STATUS,  Use.COUNTED, Shown.CUT),
    (DELIVERED, By.UNWRITTEN): End(_STOPPED, Use.KNOWN,   Shown.CUT),
    (DELIVERED, By.LEFT):      End(_STATUS,  Use.COUNTED, Shown.NOTHING),
    (DELIVERED, By.IDLE):      End(_STATUS,  Use.COUNTED, Shown.NOTHING),
    (DELIVERED, By.STOPPED):   End(_STOPPED, Use.KNOWN,   Shown.NOTHING),
    (ENDED,     By.LEFT):      End(_LEFT,    Use.COUNTED, Shown.NOTHING),
    (ENDED,     By.IDLE):      End(_LEFT,    Use.COUNTED, Shown.NOTHING, _IDLE),
    (ENDED,     By.STOPPED):   End(_STOPPED, Use.KNOWN,   Shown.NOTHING),
}
# fmt: on
