"""`PYTHONPATH=proxy:scripts python -m reference [DIR]`: write every page, to docs/reference unless told where to.

Without DIR also what the chart knows of the settings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from reference.api import api_page
from reference.chart import chart_settings
from reference.errors import errors_page
from reference.metrics import metrics_page
from reference.settings import settings_page

PAGES = {"settings.md": settings_page, "metrics.md": metrics_page, "errors.md": errors_page, "api.md": api_page}


def main() -> None:
    """Write them."""
    root = Path(__file__).parents[2]
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else root / "docs/reference")
    if len(sys.argv) == 1:
        (root / "helm/taximeter/files/settings.json").write_text(chart_settings(), encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in PAGES.items():
        (folder / name).write_text(made(), encoding="utf-8")


main()
