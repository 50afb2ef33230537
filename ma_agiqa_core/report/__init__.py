"""What a person looks at: the HTML report."""

from .html_report import write_report

__all__ = ["write_report"]
