"""A PostgreSQL cluster of its own for the tests: made empty, reached by a Unix socket, thrown away."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from uuid import uuid4


def programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres``, None where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


class Postgres:
    """A running cluster. PostgreSQL refuses to run as root; then it runs as its own user."""

    def __init__(self, bin_dir: Path) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="ainode-pg-"))
        self._user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        if self._user:
            shutil.chown(self._root, "postgres", "postgres")
        self._run(str(bin_dir / "initdb"), "-D", str(self._root / "data"), "-A", "trust", "-U", "ainode", "--no-sync")
        self._server = subprocess.Popen(
            [*self._user, str(bin_dir / "postgres"), "-D", str(self._root / "data"), "-k", str(self._root), "-h", "",
             "-c", "fsync=off"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        self._createdb = str(bin_dir / "createdb")
        self._await()

    def _run(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self._user, *command], check=True, capture_output=True, cwd="/")

    def _await(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self.new_database()
                return
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def new_database(self) -> str:
        """Create an empty database; returns its SQLAlchemy URL."""
        name = f"test_{uuid4().hex}"
        self._run(self._createdb, "-h", str(self._root), "-U", "ainode", name)
        return f"postgresql+psycopg://ainode@/{name}?host={self._root}"

    def stop(self) -> None:
        """End the server and remove its files."""
        self._server.terminate()
        self._server.wait(20)
        shutil.rmtree(self._root)
