"""What each page's template is given: one struct a page, every member of which the template shows."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
from markupsafe import Markup

from taximeter.billing.shown import Printed
from taximeter.billing.statement import Margin, Standing
from taximeter.budgets.responses import BudgetInfo
from taximeter.control.answers.insights import Alternatives, Forecast, Peaks, Trend, Trends
from taximeter.control.answers.responses import TrackResponse
from taximeter.control.dashboard.fields import Field
from taximeter.control.dashboard.figures import Figures, Row, Table, Today
from taximeter.control.dashboard.pickers import Picker
from taximeter.control.dashboard.pointing import Pointing
from taximeter.control.dashboard.rates import Performance
from taximeter.control.dashboard.sorting import Sorting
from taximeter.control.dashboard.time_series import TimeSeries
from taximeter.control.dashboard.view import View
from taximeter.control.door.access import Caller
from taximeter.control.services.interfaces import Readiness
from taximeter.core.audit import AuditEntry
from taximeter.core.record import Record
from taximeter.core.totals import Totals
from taximeter.keys.store import CreatedKey, KeyInfo
from taximeter.reconcile.responses import ReconciledRow, ReconcileInfo
from taximeter.sinks.health import DeliveryHealth
from taximeter.sinks.query import Listing, Match


class Frame(msgspec.Struct, kw_only=True):
    """What stands around every page: who looks, and where one can go."""

    caller: Caller
    nav: tuple[tuple[str, str], ...]
    signed_in: bool


class Page(msgspec.Struct, kw_only=True):
    """What every page may have."""

    template: ClassVar[str]
    here: str = ""
    """Its name among the links at the top."""
    view: View | None = None
    complete: bool = True
    lag_seconds: float = 0.0


class Charges(msgspec.Struct, frozen=True, kw_only=True):
    """What the customers pay for the calls of a range."""

    whole: Decimal | None
    """As far as it is known; None: of no call."""
    uncharged: int
    """Calls that it is without."""
    note: str | None
    """Why a charge is not known that a plan says."""


class OverviewPage(Page, kw_only=True):
    """All workspaces, or one."""

    template = "overview.html"
    view: View
    dimensions: dict[str, str]
    workspace: str | None
    series: TimeSeries
    today: Today
    tables: list[Table]
    sort: Sorting
    charges: Charges | None
    """None: there are no plans, or the reader may not see what customers pay."""
    pointing: Pointing
    tracks: list[tuple[Row, int]]
    """Of a workspace, each with when it was used last (µs)."""
    apart_since_us: int
    """Above 0: before this moment refusals are among the errors."""


class TrackPage(Page, kw_only=True):
    template = "track.html"
    view: View
    answer: TrackResponse
    records: list[Record]
    shown_calls: int
    refused: int
    timeline: Markup
    legend: list[tuple[str, int]]
    """(operation, colour)."""
    records_href: str


class RecordsPage(Page, kw_only=True):
    template = "records.html"
    here: str = "Records"
    view: View
    listing: Listing
    sort: Sorting
    sorted: bool
    """False: there are too many records to sort them so."""
    paged: bool
    totals: Totals | None
    """None: too many records would have to be read for them."""
    cost: Decimal | None
    most_read: int
    pickers: list[Picker]
    exports: dict[str, str]
    """What the file is called -> its link."""


class RequestPage(Page, kw_only=True):
    template = "request.html"
    request_id: str
    attempts: list[tuple[Record, list[tuple[str, str, str]], str]]
    """Each with its known fields (name, value, link or ""), and the provider's usage as text."""
    unknown: list[list[str]]
    """Of each the fields that are not known."""
    more: bool = False
    """There are more lines of a batch."""


class SearchPage(Page, kw_only=True):
    template = "search.html"
    here: str = "Records"
    text: str
    found: list[tuple[Match, str]]
    """Each with the link to it."""
    most: int
    """Above 0: there are so many of a kind, and there may be more."""


class LivePage(Page, kw_only=True):
    template = "live.html"
    here: str = "Live"
    view: View
    records: list[Record]
    source: str
    most: int


class HealthPage(Page, kw_only=True):
    template = "health.html"
    here: str = "Meter health"
    readiness: Readiness
    node: dict[str, Any]
    delivering: DeliveryHealth | None
    known: Figures | None
    """None: history cannot be read now."""
    budgets: list[BudgetInfo] | None
    reported: int
    """Tokens that are the providers' own figures."""


class KeyUse(msgspec.Struct, frozen=True):
    """A key, and what it did this month."""

    key: KeyInfo
    calls: int | None
    """None: history cannot be read now."""
    cost: Decimal | None


class Unrotated(msgspec.Struct, frozen=True):
    """A form for another secret that was not taken: its key, what it was filled with, why."""

    key_id: str
    given: dict[str, str]
    problem: str


class KeysPage(Page, kw_only=True):
    template = "keys.html"
    here: str = "Keys"
    rows: list[KeyUse]
    workspace: str | None
    mode: str
    """`open` or `keys`."""
    fields: list[Field]
    """Of the form for a new one."""
    made: CreatedKey | None
    """With its secret: shown this once."""
    rotated: bool
    unrotated: Unrotated | None
    overlaps: dict[str, str]
    pointing: Pointing
    changes: list[AuditEntry] | None
    tokens: Callable[[], str]
    """A token for one form."""


class BudgetsPage(Page, kw_only=True):
    template = "budgets.html"
    here: str = "Budgets"
    budgets: list[BudgetInfo]
    workspace: str | None
    fields: list[Field]
    changes: list[AuditEntry] | None
    tokens: Callable[[], str]


class BillingPage(Page, kw_only=True):
    """Statements of a workspace: one drawn up or closed, and the list of those that are closed."""

    template = "billing.html"
    here: str = "Billing"
    workspace: str
    month: str
    statement: Printed | None
    href: str
    """Of the statement over HTTP: `format=` is to be added."""
    problem: str
    """Why it could not be drawn up; empty: nothing is wrong."""
    margins: list[Margin]
    """Of every workspace in the month, where none is named."""
    standings: list[Standing]


class ReconciledModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model (and key) of a comparison over its days."""

    row: ReconciledRow
    apart: float
    """Of the figure that is furthest apart: 0, nothing differs; 1, nothing agrees."""
    not_known: bool
    """Nothing is known here of some of it."""


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison with a provider."""

    info: ReconcileInfo
    days: int
    at: str
    """When it is done daily, UTC."""
    models: list[ReconciledModel]
    """Those furthest apart first."""
    further: int
    """So many are not shown."""


class ReconcilePage(Page, kw_only=True):
    template = "reconcile.html"
    here: str = "Billing"
    comparisons: list[Reconciled]


class AnalyticsPage(Page, kw_only=True):
    template = "analytics.html"
    here: str = "Analytics"
    view: View
    dimensions: dict[str, str]
    by: str
    shown: int
    sort: Sorting
    trends: Trends
    rows: list[Trend]
    """Its groups in order."""
    peaks: Peaks
    hours: Markup
    forecast: Forecast
    month_href: str
    alternatives: Alternatives


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One way of failing, or of being refused."""

    outcome: str
    error_code: str | None
    statuses: list[int]
    """What clients were answered with."""
    count: int
    href: str


class PerformancePage(Page, kw_only=True):
    template = "performance.html"
    here: str = "Performance"
    view: View
    dimensions: dict[str, str]
    by: str
    sort: Sorting
    shown: Performance
    failures: list[Failure]
    looked_at: int
    """Above 0: so many of the newest were looked at, there are more."""
    apart_since_us: int
    """Above 0: before this moment refusals are among the errors."""


class LoginPage(Page, kw_only=True):
    template = "login.html"
    next: str
    problem: str


class ErrorPage(Page, kw_only=True):
    template = "error.html"
    title: str
    message: str
