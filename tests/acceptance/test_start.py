"""How the node starts: fast, and without torch where nothing needs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.running import RunningNode, free_port

START_SECONDS = 1.5


@pytest.mark.parametrize("stage", ["scp", "serve"])
def test_the_receiver_listens_within_a_second_and_a_half(tmp_path: Path, stage: str) -> None:
    """In processor time, which other work on the machine does not stretch; starting up waits for nothing else."""
    node = RunningNode(tmp_path, pacs_port=free_port())
    taken = []
    for _ in range(3):
        process = psutil.Popen(node.command(stage), stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            while not listens(node.port):
                assert process.poll() is None
                time.sleep(0.01)
            spent = process.cpu_times()
            taken.append(spent.user + spent.system)
        finally:
            process.terminate()
            # A connection that asks for nothing (a load balancer's probe) must not hold up the end.
            assert process.wait(20) == 0
    assert min(taken) < START_SECONDS, f"{stage}: {taken}"


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return False
    return True


def test_no_torch_in_the_receiving_process(tmp_path: Path) -> None:
    node = RunningNode(tmp_path, pacs_port=free_port()).start()
    try:
        assert node.process is not None
        for process in (psutil.Process(node.process.pid), node.worker()):
            mapped = {Path(m.path).name for m in process.memory_maps()}
            assert not any("torch" in name for name in mapped)
    finally:
        node.close()


def test_importing_every_stage_but_the_run_loads_no_torch() -> None:
    heavy = "any(m.split('.')[0] in ('torch', 'monai') for m in sys.modules)"
    code = f"import sys, node.app, node.web, node.cli; sys.exit({heavy})"
    environ = {**os.environ, "PYTHONWARNINGS": "ignore"}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == 0


def test_a_second_node_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    node = RunningNode(tmp_path, pacs_port=free_port()).start()
    try:
        second = subprocess.run(node.command("serve"), capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert "is in use by a running node" in second.stderr
    finally:
        assert node.stop() == 0
