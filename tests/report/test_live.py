"""The report while a run trains: one page, of this machine alone, drawn again when the records change."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from falcon_ssl import cli
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.lock import Lock
from falcon_ssl.report.live import live_server


class Served:
    def __init__(self, run: Path, server: ThreadingHTTPServer) -> None:
        self.run, self.port = run, server.server_port

    def ask(self, method: str = "GET", path: str = "/", **headers: str) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(
            method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, answer.headers, body


@pytest.fixture
def served(make_run: Any, tmp_path: Path) -> Iterator[Served]:
    server = live_server(make_run(tmp_path / "run", evaluated=False), port=0)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Served(tmp_path / "run", server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_page_follows_the_records(served: Served) -> None:
    status, headers, body = served.ask()
    assert status == 200
    assert b"Total loss" in body
    assert b'class="live"' in body
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    tag = headers["ETag"]
    assert served.ask(If_None_Match=tag)[0] == 304
    with (served.run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 99, "epoch": 31.0, "total": 12345.0}\n{"step": 100, "ep'
        )  # and one cut off
    status, headers, body = served.ask(If_None_Match=tag)
    assert (status, headers["ETag"] != tag) == (200, True)
    assert b"up to epoch 31" in body


def test_a_run_that_trains_shows_its_latest_numbers_first(served: Served) -> None:
    assert b"Epoch</h2>" not in served.ask()[2]
    (served.run / ".lock").touch()
    with Lock(served.run):
        page = served.ask()[2].decode()
        assert "Epoch</h2>" in page
        assert page.index('id="training"') < page.index('id="theory"')
        assert "running" in page
        assert "unfinished" not in page
    assert "running" not in served.ask()[2].decode()


def test_a_run_without_a_step_waits_and_a_damaged_one_says_so(served: Served) -> None:
    (served.run / "metrics.jsonl").unlink()
    status, _, body = served.ask()
    assert (status, b"metrics.jsonl" in body) == (200, True)
    (served.run / "metrics.jsonl").write_text("{}\n[]\n")
    assert b"cannot read" in served.ask()[2]


@pytest.mark.parametrize(
    "path",
    ["/config.yaml", "/../config.yaml", "/%2e%2e/config.yaml", "//etc/passwd", "/?x", "/.", "*",
     "/checkpoint/state.json", "http://127.0.0.1/", "/..%5cconfig.yaml"],
)  # fmt: skip
def test_there_is_one_path(served: Served, path: str) -> None:
    status, _, body = served.ask(path=path)
    assert status == 404
    assert b"digits" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"])
def test_nothing_can_be_sent(served: Served, method: str) -> None:
    status, headers, _ = served.ask(method)
    assert status in (405, 501)
    assert "Access-Control-Allow-Origin" not in headers


def test_head_has_no_body(served: Served) -> None:
    status, headers, body = served.ask("HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", 200), ("localhost:8000", 200), ("evil.example", 421), ("evil.example:80", 421),
     ("127.0.0.1.evil.example", 421), ("", 421)],
)  # fmt: skip
def test_a_name_that_somebody_points_here_gets_nothing(
    served: Served, host: str, expected: int
) -> None:
    assert served.ask(Host=host)[0] == expected


def test_other_interfaces_are_refused(served: Served) -> None:
    """127.0.0.2 is another address of the loopback interface of Linux, as good as one of the network."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", served.port), timeout=5)


def test_a_taken_port_and_no_run_are_clear_errors(served: Served, tmp_path: Path) -> None:
    for port in (served.port, 70000, -1):
        with pytest.raises(InputError, match=f"the port cannot be had: received {port}.*--port 0"):
            live_server(served.run, port=port)
    with pytest.raises(InputError, match="no run folder"):
        live_server(tmp_path, port=0)


def test_the_command_prints_its_address_and_ends_with_ctrl_c(served: Served) -> None:
    assert cli.main(["watch", str(served.run), "--refresh", "0"]) == 2
    process = subprocess.Popen(
        [sys.executable, "-m", "falcon_ssl", "watch", str(served.run), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C, and so would this one where such a job runs the tests.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
