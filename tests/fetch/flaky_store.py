"""An S3 server in this process, and a proxy that simulates an unreliable network."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer


@contextmanager
def run_s3_server() -> Iterator[tuple[Any, tuple[str, int]]]:
    """Runs a server with the bucket `shards`. Yields a client and the (host, port) of the server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="shards")
    yield client, (host, port)
    server.stop()


def upload(client: Any, folder: Path, prefix: str) -> None:
    """Uploads every file of a folder to s3://shards/PREFIX."""
    for path in folder.rglob("*"):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            client.put_object(Bucket="shards", Key=key, Body=path.read_bytes())


@contextmanager
def run_proxy(upstream: tuple[str, int]) -> Iterator[Proxy]:
    """Runs a proxy of the server at `upstream` and sets the environment so that new clients use the proxy."""
    proxy = Proxy(upstream)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}",
        }.items():
            patch.setenv(name, value)
        yield proxy
    proxy.shutdown()
    thread.join()
    proxy.server_close()


class Proxy(ThreadingHTTPServer):
    """An HTTP proxy that lets every `fail_every`-th request fail, in three alternating ways.

    Attributes:
        upstream: (host, port) of the server.
        fail_every: one in this many requests fails; 0: none fails.
        is_down: whether every request is answered with 503.
        delay_s: delay of every response.
        ranges: `Range` headers of all requests, in the order of arrival.
        num_failed: number of failed requests.
        num_active: number of requests in progress.
        max_concurrent: largest number of requests that were in progress at once.
    """

    daemon_threads = True

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.fail_every = 0
        self.is_down = False
        self.delay_s = 0.0
        self.clear()

    def clear(self) -> None:
        """Resets the record of requests."""
        self.ranges: list[str] = []
        self.num_failed = self.max_concurrent = self.num_active = 0
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores errors of clients that close the connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_GET(self) -> None:
        proxy = self.server
        with proxy.lock:
            proxy.ranges.append(self.headers.get("Range", ""))
            fails = bool(proxy.fail_every) and len(proxy.ranges) % proxy.fail_every == 0
            failure = 1 if proxy.is_down else proxy.num_failed % 3 if fails else None
            proxy.num_failed += fails
            proxy.num_active += 1
            proxy.max_concurrent = max(proxy.max_concurrent, proxy.num_active)
        time.sleep(proxy.delay_s)
        try:
            self._forward(failure)
        finally:
            with proxy.lock:
                proxy.num_active -= 1

    do_HEAD = do_GET  # noqa: N815

    def _forward(self, failure: int | None) -> None:
        if failure == 0:  # closes the connection without a response
            self.close_connection = True
            return
        if failure == 1:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        server = http.client.HTTPConnection(*self.server.upstream, timeout=20)
        server.request(self.command, self.path, headers=dict(self.headers))
        response = server.getresponse()
        body = response.read()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        if failure == 2:  # sends half of the announced body
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)
        server.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing."""
