"""A run, a sweep or several sweeps as one self-contained HTML page."""

from mtl_cli.report.page import run_page, sweep_page

__all__ = ["run_page", "sweep_page"]
