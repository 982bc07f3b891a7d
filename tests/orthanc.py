"""A real Orthanc as the PACS, on a folder and ports of its own."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

from tests import peers
from tests.running import eventually, free_port


class Orthanc:
    """Orthanc with DICOMweb, on loopback; accepts every C-STORE and answers every query.

    ``knows`` are the neighbours on loopback that it may send to: AE title to port. ``stores_at`` are the DICOMweb
    servers that it may store at, by name, each as its configuration has them; ``settings`` are further ones.
    """

    def __init__(
        self,
        root: Path,
        *,
        knows: Mapping[str, int] | None = None,
        stores_at: Mapping[str, Mapping[str, Any]] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        programs = peers.orthanc()
        self.port, self.http_port = free_port(), free_port()
        self._root = root
        config = root / "orthanc.json"
        config.write_text(
            json.dumps(
                {
                    "Name": "PACS",
                    "StorageDirectory": str(root / "db"),
                    "IndexDirectory": str(root / "db"),
                    "Plugins": [str(programs.dicom_web)],
                    "HttpPort": self.http_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomPort": self.port,
                    "DicomAet": "PACS",
                    "DicomAlwaysAllowStore": True,
                    "DicomCheckCalledAet": True,
                    "DicomModalities": {ae: [ae, "127.0.0.1", port] for ae, port in (knows or {}).items()},
                    "DicomAlwaysAllowFind": True,
                    "DicomAlwaysAllowGet": True,
                    "DicomAlwaysAllowMove": True,
                    "DefaultEncoding": "Utf8",
                    "DicomWeb": {
                        "Enable": True,
                        "Root": "/dicom-web/",
                        "EnableWado": True,
                        "WadoRoot": "/wado",
                        "Servers": dict(stores_at or {}),
                    },
                    **(settings or {}),
                }
            )
        )
        self._command = [str(programs.program), str(config)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self._root / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        eventually(self._answers, "Orthanc answers")

    def _answers(self) -> bool:
        try:
            return "Version" in self.get("/system")
        except (URLError, OSError):
            return False

    def stop(self) -> None:
        """End it; what it stored stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def get(self, path: str) -> Any:
        """Ask its REST API."""
        return json.loads(self.raw(path))

    def raw(self, path: str) -> bytes:
        """Ask its REST API for bytes."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=30) as answer:
            body: bytes = answer.read()
        return body

    def post(self, path: str, body: bytes) -> bytes:
        """Post to its REST API."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=body, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            said: bytes = answer.read()
        return said

    def delete(self, sop_instance_uid: str) -> None:
        """Lose an instance."""
        (found,) = json.loads(self.post("/tools/lookup", sop_instance_uid.encode()))
        url = f"http://127.0.0.1:{self.http_port}{found['Path']}"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).close()

    def download(self, folder: Path, *, leave_out: frozenset[str] = frozenset()) -> list[Path]:
        """Write every instance of the archive, save those of some modalities, to a folder, as they are stored."""
        paths = []
        for series in self.get("/series?expand"):
            modality = series["MainDicomTags"]["Modality"]
            if modality in leave_out:
                continue
            for number, instance in enumerate(series["Instances"]):
                path = folder / f"{modality}-{number:04d}.dcm"
                path.write_bytes(self.raw(f"/instances/{instance}/file"))
                paths.append(path)
        return paths
