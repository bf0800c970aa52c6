"""Control planes with some days of made-up calls behind them."""

from control_plane import start
from dashboards import guarded, house

__all__ = ["guarded", "house", "start"]
