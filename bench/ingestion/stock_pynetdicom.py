"""A storage SCP as pynetdicom's documentation shows it: the defaults of ``AE``, a handler that decodes and saves.

python stock_pynetdicom.py PORT FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, evt


def main() -> None:
    """Serve until killed."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])

    def store(event: Any) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        dataset.save_as(folder / dataset.SOPInstanceUID, enforce_file_format=True)
        return 0x0000

    entity = AE()
    entity.supported_contexts = AllStoragePresentationContexts
    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main()
