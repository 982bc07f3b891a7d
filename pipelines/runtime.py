"""The device that a pipeline runs on, and how a network runs there: precision, window batches, too little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from monai.inferers.inferer import SlidingWindowInferer

from node.domain.errors import OutOfMemory, Unavailable

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_CPU = torch.device("cpu")
_MOST_WINDOWS = 16  # more at once make a GPU no faster
_SHARE = 0.8  # of the free memory, that windows may fill: the allocator loses some between blocks
# How libraries say it without an exception class of their own.
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "_STATUS_ALLOC_FAILED")


def device_of(name: str) -> torch.device:
    """A device that was proved to work.

    Args:
        name: ``cpu``, ``cuda:N``, or ``auto``: the first GPU, else the CPU.

    Raises:
        Unavailable: there is no such device, or it does not answer.
    """
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise Unavailable(f"device {name!r} cannot be used: {error}") from error
    return device


@dataclass(frozen=True)
class _Way:
    """One way to run an inferer: where the network is, where windows are put together, how many run at once."""

    device: torch.device
    stitch: torch.device
    windows: int | None  # None where the inferer knows no windows

    def __str__(self) -> str:
        windows = "" if self.windows is None else f", {self.windows} windows at once"
        apart = "" if self.stitch == self.device else f", put together on {self.stitch}"
        return f"{self.device}{windows}{apart}"


class Runner:
    """A network on its device, that makes do with the memory there is.

    When memory runs out, the windows that run at once are halved; then the result is put together on the host; then the
    network runs on the CPU, for this image. What was needed once is not tried again: the next image begins there,
    unless it was the CPU.

    Args:
        precision: on a GPU, ``bf16`` or ``fp16`` by autocast, and channels last, which these want, as the CPU does,
            which computes in fp32 whatever it says.
        compiled: by ``torch.compile``, on the device, not where the CPU helps out.
    """

    def __init__(
        self, network: torch.nn.Module, device: torch.device, *, precision: Precision = "fp32", compiled: bool = False
    ) -> None:
        self.network = network.to(device).eval()
        self._device = device
        self._dtype = _DTYPES.get(precision) if device.type == "cuda" else None
        # Convolutions of the CPU like it too (measured: 5 to 10 % of the time); results differ by rounding.
        if self._dtype is not None or device.type == "cpu":
            self.network = _channels_last(self.network)
        self._compiled: Any = torch.compile(self.network) if compiled else self.network
        self._windows: int | None = None

    def __call__(
        self, inferer: Callable[..., Any], image: torch.Tensor, sliding: SlidingWindowInferer | None = None
    ) -> Any:
        """Run ``inferer(image, network)``; its result is where the inferer leaves it, or on the CPU.

        Args:
            image: (batch, channels, …), on any device.
            sliding: what cuts the image into windows, where that is not ``inferer`` itself.

        Raises:
            OutOfMemory: in every way; the text names each.
        """
        tried: list[str] = []
        if sliding is None and isinstance(inferer, SlidingWindowInferer):
            sliding = inferer
        for way in self._ways(sliding, image):
            try:
                result = self._run(inferer, sliding, image, way)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                tried.append(f"{way}: {causes(error)[:200]}")
            else:
                if way.device == self._device:
                    self._windows = way.windows
                return result
            finally:
                self._free()
        raise OutOfMemory("; then ".join(tried))

    def _ways(self, sliding: SlidingWindowInferer | None, image: torch.Tensor) -> Iterator[_Way]:
        device = self._device
        if sliding is None:
            yield _Way(device, device, None)
            if device != _CPU:
                yield _Way(_CPU, _CPU, None)
            return
        asked = int(sliding.sw_batch_size)
        windows = self._windows or self._fitting(sliding, image)
        while True:
            yield _Way(device, device, windows)
            if windows == 1:
                break
            windows //= 2
        if device != _CPU:
            yield _Way(device, _CPU, 1)
            yield _Way(_CPU, _CPU, asked)

    def _fitting(self, inferer: SlidingWindowInferer, image: torch.Tensor) -> int:
        """Windows at once: on a GPU as many as its free memory holds, measured by one, which also warms it up."""
        asked = int(inferer.sw_batch_size)
        if self._device.type != "cuda":
            return asked
        roi = inferer.roi_size if isinstance(inferer.roi_size, (tuple, list)) else [inferer.roi_size] * (image.ndim - 2)
        sides = [side if side > 0 else extent for side, extent in zip(roi, image.shape[2:], strict=True)]
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        try:
            with self._precision(self._device):
                self._compiled(torch.zeros((1, image.shape[1], *sides), device=self._device))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return 1
        one = torch.cuda.max_memory_allocated(self._device) - before
        self._free()
        free, _ = torch.cuda.mem_get_info(self._device)
        return windows_that_fit(free - image.nbytes, one)

    def _run(self, inferer: Any, sliding: Any, image: torch.Tensor, way: _Way) -> Any:
        network = self._compiled
        if way.device != self._device:
            network = self.network.to(way.device)
        kept = {name: getattr(sliding, name) for name in ("sw_batch_size", "sw_device", "device") if way.windows}
        try:
            if way.windows:
                sliding.sw_batch_size = way.windows
                if way.stitch != self._device:
                    sliding.sw_device, sliding.device = way.device, way.stitch
            with self._precision(way.device):
                result = inferer(image.to(way.stitch), network)
            return result.float() if self._dtype is not None and isinstance(result, torch.Tensor) else result
        finally:
            for name, value in kept.items():
                setattr(sliding, name, value)
            if way.device != self._device:
                self.network.to(self._device)

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        if self._dtype is None or device.type != "cuda":
            return nullcontext()
        return torch.autocast(device.type, dtype=self._dtype)

    def _free(self) -> None:
        """Give unused blocks back: other processes use this device too."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def windows_that_fit(free: int, one: int) -> int:
    """How many windows run at once in ``free`` bytes where one takes ``one``: a power of two, at least 1."""
    fit = min(_MOST_WINDOWS, max(1, int(free * _SHARE) // max(one, 1)))
    return 1 << (fit.bit_length() - 1)


def _channels_last(network: torch.nn.Module) -> torch.nn.Module:
    """``network`` with the weights of its convolutions channels last."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        elif isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


@contextmanager
def memory(what: str) -> Iterator[None]:
    """Tell that memory ran out as an error of the tree, also where MONAI wrapped it into another."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            raise OutOfMemory(f"{what}: {causes(error)}") from error
        raise


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error``, or what caused it, says that the device or the host had too little memory."""
    return any(
        isinstance(e, (MemoryError, torch.OutOfMemoryError)) or any(said in str(e) for said in _OUT_OF_MEMORY)
        for e in chain(error)
    )


def causes(error: BaseException) -> str:
    """The texts of an error and of its causes, on one line."""
    return ": ".join(" ".join(str(e).split()) for e in chain(error))[:500]


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, what caused that."""
    while error is not None:
        yield error
        error = error.__cause__
