"""A run, a sweep or several sweeps as one self-contained HTML page."""

from mtl_cli.report.files import plot_files
from mtl_cli.report.page import picture_page, run_markdown, run_page, sweep_page

__all__ = ["picture_page", "plot_files", "run_markdown", "run_page", "sweep_page"]
