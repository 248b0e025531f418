"""Pages and pictures of runs; as `falcon_ssl.cli.commands`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.errors import InputError


def report(run: str, *, out: str | None = None) -> None:
    """Write a self-contained HTML page about a run.

    Args:
        run: Run folder.
        out: Page to write; null is report.html in the run folder.
    """
    from falcon_ssl.report import build_report

    print(f"report: {build_report(Path(run), None if out is None else _page(out))}")


def compare(runs: tuple[str, ...], *, out: str = "comparison.html") -> None:
    """Compare runs: a table here, and a page with curves, spectra and pictures over one another.

    Args:
        runs: Run folders; those that differ by their seed alone are one column.
        out: Page to write.
    """
    from falcon_ssl.cli import printing
    from falcon_ssl.report.comparison import comparison_page, read_runs
    from falcon_ssl.report.document import write_page
    from falcon_ssl.report.families import families

    compared = families(read_runs([Path(run) for run in runs]))
    page = write_page(comparison_page(compared), _page(out))
    printing.print_comparison(compared)
    print(f"page: {page}")


def runs(folder: str = "runs") -> None:
    """List runs with their state and numbers, the one that changed last first.

    Args:
        folder: Folder that holds run folders, at any of four levels.
    """
    from falcon_ssl.cli import printing
    from falcon_ssl.records.listing import list_runs

    printing.print_runs(list_runs(folder), folder)


def watch(run: str, *, port: int = 8000, refresh: float = 5.0) -> None:
    """Show the report of a run in the browser while it trains; on this machine's own address alone.

    Args:
        run: Run folder.
        port: Port of 127.0.0.1; 0 takes a free one.
        refresh: Seconds between two looks at the records, at least.
    """
    from falcon_ssl.report.live import serve_report

    def ready(address: str) -> None:
        print(f"{address}   (Ctrl-C ends it)", flush=True)

    with suppress(KeyboardInterrupt):
        serve_report(run, port=port, refresh=refresh, ready=ready)


def views(config: RunConfig, *, out: str, num_images: int = 8, overwrite: bool = False) -> None:
    """Draw what the network sees: images beside their augmented views.

    Args:
        config: Options of the run.
        out: Picture to write: .png.
        num_images: Rows of the sheet.
        overwrite: Replace the file, if there is one.
    """
    from falcon_ssl import commands

    sheet = commands.views_sheet(config, out=out, num_images=num_images, overwrite=overwrite)
    print(f"views: {sheet}")


def _page(out: str) -> Path:
    """A page to write, in a folder that is made where there is none."""
    path = Path(out)
    if path.suffix not in (".html", ".htm"):
        raise InputError("unknown kind of page", received=out, expected="a name that ends in .html")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
