"""The dashboard on the control port: pages made here, on the server, of the same queries as the usage API."""

from taximeter.control.dashboard import charts, rendering
from taximeter.control.dashboard.analytics import AnalyticsPages
from taximeter.control.dashboard.billing import BillingPages
from taximeter.control.dashboard.managing import PAGES as MANAGING
from taximeter.control.dashboard.pages import Pages
from taximeter.control.dashboard.performance import PerformancePages
from taximeter.control.dashboard.reconciling import ReconcilePages
from taximeter.control.dashboard.records import PAGES as RECORDS
from taximeter.control.dashboard.showing import unknown_page
from taximeter.control.dashboard.sign_in import SignIn

__all__ = ["PAGES", "unknown_page", "warm"]

PAGES = (Pages, AnalyticsPages, PerformancePages, BillingPages, ReconcilePages, *RECORDS, *MANAGING, SignIn)
"""For Litestar(route_handlers=…)."""


def warm() -> None:
    """Do beforehand what the first page would have to wait 0.1 s for; takes 6 MB. For a thread."""
    charts.load()
    rendering.compile_templates()
