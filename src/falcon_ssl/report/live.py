"""The report of a run while it trains: one page on this machine's own address, drawn again when the records change.

Nothing of the disk is served but that page, so there is no path to go astray. Only this machine can ask (another one
through ssh, see docs/commands.md), and only by its own address: a site that points a name of its own here gets nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.folder import METRICS, RECORD_FORMS, RunFolder
from falcon_ssl.records.listing import run_state
from falcon_ssl.records.run import Run, read_run
from falcon_ssl.report.document import Page, page_html
from falcon_ssl.report.run import run_page
from falcon_ssl.report.tables import latest_cards

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " img-src data:; connect-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
MOST_OF_THE_TIME = 0.05  # that a page is drawn in: it shares the machine with the training


def live_page(run: Run) -> Page:
    """The page of a run that trains: its latest numbers, then the curves, then what an evaluation has left."""
    page = run_page(replace(run, unfinished=""))
    if run.evaluation:
        return page
    first = sorted(page.sections, key=lambda section: section.slug != "training")
    return replace(page, cards=latest_cards(run), sections=first)


class LiveReport:
    """The page of a run, drawn when it is asked for and its records have changed.

    Args:
        run_dir: The run folder.
        refresh: Seconds between two looks of a browser, at least.

    Raises:
        InputError: No run folder.
    """

    def __init__(self, run_dir: str | Path, *, refresh: float = 5.0) -> None:
        self._run = RunFolder.open(run_dir).path
        self._refresh = self._least = refresh
        self._lock = Lock()
        self._tag, self._html = "", b""

    def current(self) -> tuple[str, bytes]:
        """A name of what the records hold, and the page."""
        with self._lock:
            tag = self._records()
            if tag != self._tag:
                started = time.thread_time()
                self._html = page_html(self._page()).encode()
                self._refresh = max(self._least, (time.thread_time() - started) / MOST_OF_THE_TIME)
                self._tag = tag
            return self._tag, self._html

    def _records(self) -> str:
        files = [
            *(self._run / name for name in RECORD_FORMS),
            *self._run.glob("checkpoint*/state.json"),
        ]
        seen = [
            (file.name, status.st_mtime_ns, status.st_size)
            for file in files
            if (status := _status(file))
        ]
        return sha256(repr((run_state(self._run), seen)).encode()).hexdigest()[:16]

    def _page(self) -> Page:
        state = run_state(self._run)
        try:
            run = read_run(self._run)
        except InputError as error:  # begun, and no step logged yet; or damaged, which it says
            waiting = state == "running" and not (self._run / METRICS).is_file()
            text = "No step is logged yet." if waiting else str(error)
            page = Page(self._run.resolve().name, "falcon-ssl", None, text)
        else:
            page = live_page(run) if state == "running" else run_page(run)
        return replace(page, live=f"{state} · {time.strftime('%H:%M:%S')}", refresh=self._refresh)


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of / and of nothing else."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "falcon-ssl", ""
    timeout = 30
    report: LiveReport

    def do_GET(self) -> None:
        """The page, or that it has not changed."""
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in NAMES:
            return self._answer(HTTPStatus.MISDIRECTED_REQUEST, b"ask for http://127.0.0.1\n")
        if self.path != "/":
            return self._answer(HTTPStatus.NOT_FOUND, b"there is one page: /\n")
        tag, html = self.report.current()
        if self.headers.get("If-None-Match") == f'"{tag}"':
            return self._answer(HTTPStatus.NOT_MODIFIED, b"", tag)
        return self._answer(HTTPStatus.OK, html, tag)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.close_connection = True  # whatever it sent with it is not read
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, b"GET and HEAD alone\n")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse

    def _answer(self, status: HTTPStatus, body: bytes, tag: str = "") -> None:
        self.send_response(status)
        headers = HEADERS | {
            "Content-Type": f"text/{'html' if status == HTTPStatus.OK else 'plain'}; charset=utf-8"
        }
        headers |= {"ETag": f'"{tag}"'} if tag else {}
        headers |= {"Allow": "GET, HEAD"} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
        headers |= {"Connection": "close"} if self.close_connection else {}
        if status != HTTPStatus.NOT_MODIFIED:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: a look every few seconds is no news."""


def serve_report(
    run_dir: str | Path,
    *,
    port: int = 8000,
    refresh: float = 5.0,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the page of a run until the process is interrupted.

    Args:
        run_dir: The run folder, which a training may be writing to.
        port: Of 127.0.0.1; 0 takes a free one.
        refresh: Seconds between two looks of a browser, at least.
        ready: Called with the address.

    Raises:
        InputError: No run folder, or a port that cannot be had.
    """
    with live_server(run_dir, port=port, refresh=refresh) as server:
        ready(f"http://{ADDRESS}:{server.server_port}/")
        server.serve_forever()


def live_server(run_dir: str | Path, *, port: int, refresh: float = 5.0) -> ThreadingHTTPServer:
    """The server of `serve_report`, which does not serve yet."""
    check_at_least("refresh", refresh, 0.1, fix="5 seconds are usual")
    report = LiveReport(run_dir, refresh=refresh)
    handler = type("Handler", (_Handler,), {"report": report})
    try:
        return ThreadingHTTPServer((ADDRESS, port), handler)
    except (OSError, OverflowError) as error:
        raise InputError(
            "the port cannot be had",
            received=f"{port}: {error}",
            expected="a free one, from 1024 to 65535 for most users",
            fix="--port 0 takes a free one",
        ) from error


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
