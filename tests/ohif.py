"""OHIF as a radiologist has it: the built viewer and the archive's DICOMweb from one origin, in a real browser."""

from __future__ import annotations

import http.client
import json
import mimetypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from tests import peers

_CONFIG = Path(__file__).resolve().parents[1] / "deploy" / "ohif" / "app-config.js"
_ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ARCHIVE = ("/dicom-web", "/wado")


class _Handler(BaseHTTPRequestHandler):
    """Files of the viewer, and everything below the archive's roots handed on to it."""

    protocol_version = "HTTP/1.1"
    dist: ClassVar[Path]
    archive_port: ClassVar[int]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith(_ARCHIVE):
            self._hand_on(None)
            return
        file = _CONFIG if path == "/app-config.js" else self.dist / path.lstrip("/")
        if not file.is_file():
            file = self.dist / "index.html"  # the viewer's own addresses
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        kind = {".wasm": "application/wasm", ".mjs": "text/javascript"}.get(file.suffix, kind)
        self._answer(200, kind, file.read_bytes())

    def do_POST(self) -> None:
        self._hand_on(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _hand_on(self, body: bytes | None) -> None:
        archive = http.client.HTTPConnection("127.0.0.1", self.archive_port, timeout=120)
        headers = {k: v for k, v in self.headers.items() if k.lower() in ("accept", "content-type", "host")}
        archive.request(self.command, self.path, body, headers)
        answer = archive.getresponse()
        self._answer(answer.status, answer.getheader("Content-Type") or "", answer.read())
        archive.close()

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**_ISOLATED, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(dist: Path, archive_port: int) -> Iterator[str]:
    """Serve the viewer beside the archive; gives the base URL."""
    handler = type("Handler", (_Handler,), {"dist": dist, "archive_port": archive_port})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def look(study_uid: str, archive_port: int, shots: Path, *, series: dict[str, int], script: str = "ohif.js") -> Any:
    """Open a study as a radiologist would; what was seen, as the script tells it. Screenshots go to ``shots``.

    Args:
        series: the series numbers that the script wants: of ``SR``, ``SEG``, ``SC``, for ``gallery.js`` of ``MAP`` too.
    """
    viewer = peers.viewer()
    with served(viewer.dist, archive_port) as url:
        run = subprocess.run(
            [
                viewer.node,
                Path(__file__).with_name(script),
                viewer.chromium,
                f"{url}/viewer?StudyInstanceUIDs={study_uid}",
                shots,
                json.dumps(series),
            ],
            env={**os.environ, "NODE_PATH": str(viewer.modules)},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
