"""A run, a sweep or several sweeps as one self-contained HTML page, or plot by plot."""

from mtl_cli.report.page import Report, picture_report, run_markdown, run_report, sweep_report
from mtl_cli.report.plots import Plot, plot_files

__all__ = ["Plot", "Report", "picture_report", "plot_files", "run_markdown", "run_report", "sweep_report"]
