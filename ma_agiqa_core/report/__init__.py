"""What a person looks at: the HTML report."""

from .html_report import ReportEntry, write_report

__all__ = ["ReportEntry", "write_report"]
