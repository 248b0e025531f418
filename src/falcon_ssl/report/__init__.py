"""Reports: self-contained pages from recorded runs, without torch and without network.

build_report(run_dir)            one run
"""

from falcon_ssl.report.html import build_report
from falcon_ssl.report.records import Run, read_run

__all__ = ["Run", "build_report", "read_run"]
