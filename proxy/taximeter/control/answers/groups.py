"""What answers say of which calls their figures are: a window of time, and the names grouped by. Pure."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

GroupName = str | None | UnsetType
"""Null: the calls carry none. Left out: it was not grouped by this."""


class GroupPart(msgspec.Struct, kw_only=True, gc=False):
    """One group, or one window of it; what it has of figures comes behind."""

    start: str | UnsetType = UNSET
    """Start of the window, in a series."""
    end: str | UnsetType = UNSET
    workspace: GroupName = UNSET
    track: GroupName = UNSET
    document: GroupName = UNSET
    task: GroupName = UNSET
    model: GroupName = UNSET
    provider: GroupName = UNSET
    operation: GroupName = UNSET
    key_id: GroupName = UNSET
    end_user: GroupName = UNSET
    service_tier: GroupName = UNSET
