"""The report of an evaluation: one HTML file with everything inside, and nothing from elsewhere."""

from retom.evaluation.report.page import page, write_report

__all__ = ["page", "write_report"]
