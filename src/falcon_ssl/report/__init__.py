"""Reports: self-contained pages from recorded runs, without torch and without network.

build_report(run_dir)             one run
build_comparison(run_dirs, out)   several runs side by side, mean and spread over seeds
build_sweep(run_dirs, out)        quality and geometry against the size of the dictionary
"""

from falcon_ssl.core.extras import train_extra

with train_extra("falcon_ssl.report"):
    from falcon_ssl.records.run import Run, read_run
    from falcon_ssl.report.comparison import build_comparison
    from falcon_ssl.report.run import build_report
    from falcon_ssl.report.sweep import build_sweep

__all__ = ["Run", "build_comparison", "build_report", "build_sweep", "read_run"]
