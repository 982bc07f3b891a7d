"""Who receives: each receiver on a port and a folder of its own, started anew for every measurement."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from ingestion.machine import listens

ROOT = Path(__file__).resolve().parents[2]
# Only system folders are searched: pynetdicom installs commands with the names of DCMTK's into the environment.
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin:/bin"
SENDER_AE_TITLE = "STORESCU"
MAX_PDU = 131072

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_PART10_MAGIC_AT = 128


class BenchError(Exception):
    """A measurement that could not be made, and why."""


@dataclass(frozen=True)
class Receiver:
    """How to start one storage SCP.

    Attributes:
        key: its name in the JSON and on the command line.
        title: its name in tables.
        ae_title: what senders call it.
        command: from a fresh folder and a port, the command that receives into ``folder/store``; writes its settings.
        problem: why it cannot run here; None when it can.
        version: what it says about itself.
        listens: whether all of it listens, by its log; a port that accepts is enough for most.
    """

    key: str
    title: str
    ae_title: str
    command: Callable[[Path, int], list[str]]
    problem: Callable[[], str | None]
    version: Callable[[], str]
    listens: Callable[[str], bool] = lambda log: True


@dataclass(frozen=True)
class Running:
    """A receiver that listens."""

    pid: int
    ae_title: str
    port: int
    store: Path


@contextmanager
def running(receiver: Receiver, folder: Path) -> Iterator[Running]:
    """Start a receiver on an empty folder, end it and everything that it started, remove the folder.

    Raises:
        BenchError: it ends, or does not listen in time.
    """
    shutil.rmtree(folder, ignore_errors=True)
    store = folder / "store"
    store.mkdir(parents=True)
    port, log = _free_port(), folder / "receiver.log"
    command = receiver.command(folder, port)
    with log.open("wb") as stream:
        # A session of its own, so that its whole process group can be ended.
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        _wait_until_it_listens(process, port, log, receiver.listens)
        yield Running(process.pid, receiver.ae_title, port, store)
    finally:
        _end(process)
        shutil.rmtree(folder)


def held(store: Path, least_bytes: int) -> int:
    """How many DICOM files of at least so many bytes lie below a folder."""
    return sum(_is_object(Path(top) / name, least_bytes) for top, _, names in os.walk(store) for name in names)


def environment() -> dict[str, str]:
    """What sender and receivers run with: no settings of a node nearby, and TCP_NODELAY for DCMTK.

    Orthanc is built on DCMTK. Without it on both sides the answers of either wait for delayed acknowledgements, some
    40 ms each: one would compare with a fault of configuration.
    """
    ours = {k: v for k, v in os.environ.items() if not k.startswith("AINODE_")}
    return {**ours, "TCP_NODELAY": "1", "PYTHONUNBUFFERED": "1"}


def system_program(name: str) -> str | None:
    """The path of an installed program, None where there is none."""
    return shutil.which(name, path=SYSTEM_PATH)


def said(command: list[str]) -> str:
    """The first line that a command prints, or its last one if it fails."""
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[0] if done.returncode == 0 else lines[-1]


def dcmtk_version() -> str:
    """The version of DCMTK, as its storescu says it."""
    return _version("storescu")


def _version(program: str) -> str:
    match = re.search(r"\bv?(\d+\.[\w.]+)", said([_program(program), "--version"]))
    return match[1] if match else "unknown"


def _ainode(sync: str, processes: int = 1) -> Receiver:
    node = [sys.executable, "-m", "node"]

    def settings(folder: Path, port: int) -> list[str]:
        config = folder / "node.yaml"
        tree = {
            "node": {
                "ae_title": "AINODE",
                "host": "127.0.0.1",
                "port": port,
                "data_dir": str(folder / "store"),
                "sync": sync,
                "receivers": processes,
            },
            "peers": {"SENDER": {"ae_title": SENDER_AE_TITLE, "host": "127.0.0.1", "receive": True}},
        }
        config.write_text(yaml.safe_dump(tree))
        return [*node, "--config", str(config)]

    def problem() -> str | None:
        with tempfile.TemporaryDirectory() as scratch:
            check = [*settings(Path(scratch), 11112), "check-config"]
            done = subprocess.run(check, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        return None if done.returncode == 0 else " ".join(done.stderr.split())

    return Receiver(
        f"ainode-{sync}" + (f"-{processes}" if processes > 1 else ""),
        f"ainode, sync {sync}" + (f", {processes} receivers" if processes > 1 else ""),
        "AINODE",
        lambda folder, port: [*settings(folder, port), "scp"],
        problem,
        lambda: said([*node, "version"]),
        lambda log: log.count(" listens on ") == processes,
    )


def _storescp(folder: Path, port: int) -> list[str]:
    return [_program("storescp"), "--fork", "--max-pdu", str(MAX_PDU), "-od", str(folder / "store"), str(port)]


def _orthanc(folder: Path, port: int) -> list[str]:
    config = folder / "orthanc.json"
    settings = {
        "Name": "BENCH",
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "HttpServerEnabled": False,
        "DicomPort": port,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "MaximumPduLength": MAX_PDU,
    }
    config.write_text(json.dumps(settings))
    return [_program("Orthanc"), str(config)]


def _stock_pynetdicom(folder: Path, port: int) -> list[str]:
    script = Path(__file__).with_name("stock_pynetdicom.py")
    return [sys.executable, str(script), str(port), str(folder / "store")]


def _pynetdicom_version() -> str:
    from importlib.metadata import version

    return f"{version('pynetdicom')} with pydicom {version('pydicom')}"


def _missing(program: str) -> Callable[[], str | None]:
    return lambda: None if system_program(program) else f"{program} is not installed"


def _program(name: str) -> str:
    found = system_program(name)
    if found is None:
        raise BenchError(f"{name} is not installed")
    return found


RECEIVERS: Mapping[str, Receiver] = {
    receiver.key: receiver
    for receiver in (
        _ainode("instance"),
        _ainode("none"),
        _ainode("instance", 2),
        _ainode("none", 2),
        Receiver("dcmtk", "DCMTK storescp --fork", "STORESCP", _storescp, _missing("storescp"), dcmtk_version),
        Receiver(
            "orthanc",
            "Orthanc",
            "ORTHANC",
            _orthanc,
            _missing("Orthanc"),
            lambda: _version("Orthanc"),
        ),
        Receiver("pynetdicom", "pynetdicom, stock", "PYNETDICOM", _stock_pynetdicom, lambda: None, _pynetdicom_version),
    )
}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_listens(
    process: subprocess.Popen[bytes], port: int, log: Path, by_log: Callable[[str], bool]
) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not (listens(port) and by_log(log.read_text(errors="replace"))):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-1000:]
            raise BenchError(f"does not listen on port {port}; its log ends: {tail}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _is_object(path: Path, least_bytes: int) -> bool:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size >= least_bytes and file.read(132)[_PART10_MAGIC_AT:] == b"DICM"
    except FileNotFoundError:
        return False  # a temporary file that has got its final name meanwhile
