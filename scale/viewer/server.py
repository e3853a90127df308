"""`mode=view port=...`: the page of a run, served to browsers of this machine, which follows the run."""

from __future__ import annotations

import hashlib
import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from bimangrasp.errors import InputError
from bimangrasp.files.schema import FormatError
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.visualization.gallery import Gallery
from bimangrasp.visualization.page import page
from bimangrasp.visualization.page_data import page_data
from scale.settings.schema import Config
from scale.store.run_folder import RunFolder
from scale.viewer.gallery import NoGrasps, Target, gallery_of

HOST = "127.0.0.1"
"""This machine alone: `ssh -L` takes the port to another one."""


OWN_NAMES = (HOST, "localhost")
"""By which a browser asks; a page of another site that has its name point here asks by that name."""


class ServedReport(NamedTuple):
    """What was served. `str(report)` is for people.

    Attributes:
        address: where.
        states: how many states of the run were shown.
    """

    address: str
    states: int

    def __str__(self) -> str:
        return f"{self.address} is closed; it showed {self.states} states of the run"


class Exhibition:
    """What is shown now; any thread of the server may ask.

    Attributes:
        states: how many there were.
    """

    def __init__(self, config: Config, target: Target) -> None:
        self._config, self._target = config, target
        self._lock = threading.Lock()
        self._known, self._image = "", b""
        self.states = 0

    def version(self) -> str:
        """Returns a text that changes when the run has something new."""
        digest = hashlib.sha256()
        for path in self._files():
            try:
                state = path.stat()
            except FileNotFoundError:  # merged meanwhile
                continue
            digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def data(self) -> bytes:
        """Returns the data of the page, made anew where there is something new."""
        with self._lock:
            version = self.version()
            if version != self._known:
                self._image, self._known = json.dumps(page_data(self._gallery()), allow_nan=False).encode(), version
                self.states += 1
            return self._image

    def _files(self) -> list[Path]:
        if not self._target.is_run:
            return [self._target.path]
        folder = RunFolder(self._target.path)
        final = folder.final_files() if folder.finals.is_dir() else []
        return [*final, *folder.generated.glob("*.h5"), *folder.shard_files(), *folder.verdicts.rglob("*.h5")]

    def _gallery(self) -> Gallery:
        try:
            return gallery_of(self._config, self._target)
        except NoGrasps as error:
            return Gallery(self._target.path.name, (f"nothing yet: {error}",), load_hands(self._config.hand), (), ())


def serve(config: Config, target: Target) -> ServedReport:
    """Serves the page until Ctrl-C.

    Raises:
        InputError: there is nothing to follow, or the port is taken.
    """
    if not target.path.exists():
        raise InputError(f"{target.path} is not there; wanted the folder of a run that has begun, or a grasp file")
    exhibition = Exhibition(config, target)
    exhibition.data()  # whatever is wrong with hands or meshes is said here
    try:
        server = ThreadingHTTPServer((HOST, config.port), _handler(exhibition))
    except OSError as error:
        raise InputError(f"port={config.port} cannot be served ({error}); choose another one") from error
    address = f"http://{HOST}:{server.server_port}/"
    Console(stderr=True).print(f"{address} shows {target.path}; Ctrl-C ends it")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return ServedReport(address, exhibition.states)
    finally:
        server.server_close()


def _handler(exhibition: Exhibition) -> type[BaseHTTPRequestHandler]:
    """Returns what answers a browser."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            """Answers with the page, its data or their version."""
            answers: dict[str, tuple[str, Any]] = {
                "/": ("text/html; charset=utf-8", lambda: page(None, is_live=True).encode()),
                "/version": ("text/plain", lambda: exhibition.version().encode()),
                "/data": ("application/json", exhibition.data),
            }
            if self.headers.get("Host", "").partition(":")[0] not in OWN_NAMES:
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            kind, body = answers.get(self.path.partition("?")[0], ("", None))
            if body is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            try:
                content = body()
            except (InputError, FormatError, OSError) as error:  # the next question may find files that are whole
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", str(error).encode())
            else:
                self._answer(HTTPStatus.OK, kind, content)

        def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as http.server names it
            """Says nothing: a browser asks every few seconds."""

    return Handler
