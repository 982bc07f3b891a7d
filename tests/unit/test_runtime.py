"""A network that runs with the memory there is: windows are halved, the CPU helps out, the end names what was tried."""

from __future__ import annotations

import shutil

import pytest
import torch
from monai.inferers.inferer import SimpleInferer, SlidingWindowInferer

from node.domain.errors import OutOfMemory, Unavailable
from pipelines.runtime import Runner, device_of, out_of_memory, windows_that_fit

CPU = torch.device("cpu")
IMAGE = torch.rand((1, 1, 24, 24, 24), generator=torch.Generator().manual_seed(1))
CUDA = "CUDA out of memory. Tried to allocate 20.00 MiB"
HOST = "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"


class Net(torch.nn.Module):
    """Doubles; has memory for so many windows at once, and counts those it was given."""

    def __init__(self, room: int = 99, error: Exception | None = None) -> None:
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 1, 1, bias=False)
        torch.nn.init.constant_(self.conv.weight, 2.0)
        self.room, self.error, self.seen = room, error or RuntimeError(HOST), list[int]()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(windows))
        if len(windows) > self.room:
            raise self.error
        result: torch.Tensor = self.conv(windows)
        return result


def sliding(windows: int = 8) -> SlidingWindowInferer:
    return SlidingWindowInferer((8, 8, 8), sw_batch_size=windows, overlap=0.0)


@torch.inference_mode()
def test_windows_are_halved_until_they_fit_and_stay_so() -> None:
    network, inferer = Net(room=3), sliding()
    runner = Runner(network, CPU)
    torch.testing.assert_close(runner(inferer, IMAGE), 2 * IMAGE)
    assert network.seen[:3] == [8, 4, 2]
    assert set(network.seen[2:]) == {2, 1}, "27 windows: 13 pairs and one"
    assert inferer.sw_batch_size == 8, "the inferer is left as the bundle made it"
    network.seen.clear()
    runner(inferer, IMAGE)
    assert max(network.seen) == 2


@torch.inference_mode()
@pytest.mark.parametrize("error", [RuntimeError(HOST), torch.OutOfMemoryError(CUDA), MemoryError()])
def test_the_end_names_what_was_tried(error: Exception) -> None:
    with pytest.raises(OutOfMemory, match=r"cpu, 4 windows at once.*; then cpu, 2 windows.*; then cpu, 1 windows"):
        Runner(Net(room=0, error=error), CPU)(sliding(4), IMAGE)


@torch.inference_mode()
def test_another_error_is_not_taken_for_it() -> None:
    network = Net(room=0, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        Runner(network, CPU)(sliding(4), IMAGE)
    assert network.seen == [4]


@torch.inference_mode()
def test_the_cpu_helps_out_and_the_device_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device plays a GPU that can do nothing: it has no memory at all."""
    network = Net()
    runner = Runner(network, torch.device("cpu"))
    runner._device = torch.device("meta")
    places: list[str] = []

    def inferer(image: torch.Tensor, network: Net) -> torch.Tensor:
        places.append(f"{image.device}")
        if image.device.type == "meta":
            raise torch.OutOfMemoryError(CUDA)
        return image * 2

    monkeypatch.setattr(network, "to", lambda device: network)
    for _ in range(2):
        torch.testing.assert_close(runner(inferer, IMAGE), 2 * IMAGE)
    assert places == ["meta", "cpu", "meta", "cpu"]


@torch.inference_mode()
def test_without_windows_it_is_run_as_it_is() -> None:
    torch.testing.assert_close(Runner(Net(), CPU)(SimpleInferer(), IMAGE), 2 * IMAGE)
    with pytest.raises(OutOfMemory, match=r"^cpu: "):
        Runner(Net(room=0), CPU)(SimpleInferer(), IMAGE)


@torch.inference_mode()
def test_the_cpu_computes_in_single_precision() -> None:
    exact = Runner(Net(), CPU)(sliding(), IMAGE)
    assert torch.equal(Runner(Net(), CPU, precision="bf16")(sliding(), IMAGE), exact)


@pytest.mark.parametrize(
    ("free", "one", "fit"), [(100, 10, 8), (100, 90, 1), (1, 10, 1), (1 << 40, 10, 16), (-5, 0, 1)]
)
def test_windows_fill_what_is_free(free: int, one: int, fit: int) -> None:
    assert windows_that_fit(free, one) == fit


def test_memory_is_found_behind_other_errors() -> None:
    wrapped = RuntimeError("applying transform Spacingd")
    wrapped.__cause__ = MemoryError()
    assert out_of_memory(wrapped)
    assert not out_of_memory(RuntimeError("no kernel image is available"))


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(Unavailable, match="cuda:77"):
        device_of("cuda:77")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch itself while it compiles
@torch.inference_mode()
def test_a_compiled_network_says_the_same() -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    torch.testing.assert_close(Runner(Net(), CPU, compiled=True)(sliding(1), IMAGE), 2 * IMAGE)
