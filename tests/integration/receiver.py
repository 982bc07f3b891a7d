"""A receiver process for tests that kill it: ``python -m tests.integration.receiver DATA_DIR`` prints its port."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from node.dicom.scp import StorageSCP
from node.files.disk import DiskFiles
from node.services.receive import Receive


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


def main(data_dir: Path) -> None:
    files = DiskFiles(data_dir, min_free_bytes=0)
    files.sweep()
    receive = Receive(files, lambda uid: None, lambda uid: False, lambda kept: None, SystemClock())
    scp = StorageSCP("AINODE", "127.0.0.1", 0, receive.store, lambda calling: True, begin=receive.begin)
    scp.start()
    print(scp.port, flush=True)  # noqa: T201 - the parent reads it
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
