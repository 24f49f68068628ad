"""Reports as self-contained HTML pages, with the same numbers as JSON."""

from __future__ import annotations

from interp.report.evaluated import report, report_pictures

__all__ = ["report", "report_pictures"]
