"""Evaluations and comparisons as files that one can show: numbers, and pages for a browser."""

from flaxseg.report.command import compare_models as compare_models
from flaxseg.report.command import is_report as is_report
from flaxseg.report.command import report_evaluation as report_evaluation
