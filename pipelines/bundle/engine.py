"""A bundle's network and transforms, built by MONAI from its own configuration, and run on a Volume.

Imported by name in ``load`` only: it brings torch and MONAI.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from pydoc import ErrorDuringImport  # what MONAI's look-up of a name raises where its module cannot be imported
from typing import Any

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import decollate_batch, list_data_collate
from monai.inferers.inferer import SimpleInferer, SliceInferer, SlidingWindowInferer
from monai.transforms.compose import Compose
from monai.transforms.post.dictionary import Invertd
from monai.transforms.transform import MapTransform
from monai.transforms.utility.dictionary import EnsureChannelFirstd
from monai.transforms.utils import allow_missing_keys_mode
from monai.utils.enums import CommonKeys, PostFix
from numpy.typing import NDArray

from node.domain.errors import InvalidModel, Refused, Unavailable
from node.domain.volume import Volume
from pipelines.bundle.checkpoint import load_into, plain_data, weights_file
from pipelines.bundle.config import PARTS, Parts
from pipelines.bundle.live import confirm
from pipelines.bundle.metadata import DataFormat
from pipelines.bundle.own_code import OwnCode
from pipelines.bundle.place import back_on_grid, image_of, moved, on_grid
from pipelines.bundle.safety import examine
from pipelines.bundle.sidefile import Kind, SideFile
from pipelines.contract import Stage
from pipelines.runtime import Runner, causes, chain, memory, out_of_memory

# What MONAI raises while it builds from a configuration.
_BUILDING = (
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    ImportError,
    AttributeError,
    NameError,
    ErrorDuringImport,
)


@dataclass(frozen=True, eq=False)
class Boxes:
    """What a detector found: ``item`` has boxes, labels and scores; ``affine`` is that of the analysed image (RAS)."""

    item: dict[str, Any]
    affine: NDArray[np.float64]
    postprocessing: Compose | None


Result = NDArray[np.float32] | Boxes
_RGB = 3  # channels
_IMAGE = 3  # axes at least: channels, columns, rows


@dataclass(eq=False)
class _Item:
    """One pass through the network: of the study ``of``, whose frames, where there are several, go one by one."""

    of: Sequence[Volume]
    volumes: Sequence[Volume]
    content: dict[str, Any] = field(default_factory=dict)
    result: Result | None = None
    error: Exception | None = None


def _frames(volumes: Sequence[Volume]) -> list[Sequence[Volume]]:
    """The frames of an image, each as an image by itself; what else is read goes with every one."""
    first, *others = volumes
    return [(first.frame(k), *others) for k in range(len(first.sources))]


def _joined(items: Sequence[_Item]) -> Result | Exception:
    """The result of a study, its frames as slices again."""
    failed = next((item.error for item in items if item.error is not None), None)
    results: list[Any] = [item.result for item in items]
    return failed or (results[0] if len(results) == 1 else np.concatenate(results, axis=1))


class Engine:
    """One bundle, loaded to a device.

    Args:
        bundle: the bundle's directory.
        parts: its configuration, cut down by `pipelines.bundle.config.parts`.
        planar: it takes images by themselves, frame by frame; else volumes.
        trust_code: its own Python may run; else only what `safety` and `live` let pass.

    Raises:
        InvalidModel: the configuration asks for what it may not, cannot be built, or its weights do not fit.
        OutOfMemory: the device had too little for the network.
    """

    def __init__(
        self,
        bundle: Path,
        parts: Parts,
        side: SideFile,
        data: DataFormat,
        device: torch.device,
        *,
        kind: Kind,
        planar: bool,
        trust_code: bool,
    ) -> None:
        self._side, self._data, self._device, self._file, self._kind = side, data, device, parts.file, kind
        self._planar = planar
        self._own = OwnCode(bundle) if trust_code else None
        if not trust_code:
            use = examine(parts.tree, parts.file)
            if use.problems:
                raise use.problems[0]
            confirm(use, parts.file)
        with self._code(), plain_data(), memory(f"loading to {device}"):
            self._build(bundle, parts, trust_code=trust_code)

    def _code(self) -> Any:
        return self._own.importable() if self._own else nullcontext()

    def _build(self, bundle: Path, parts: Parts, *, trust_code: bool) -> None:
        parser = ConfigParser({**parts.tree, "device": f"$torch.device({str(self._device)!r})"})
        self._preprocessing: Any = self._part(parser, "preprocessing")
        self._postprocessing: Any = self._part(parser, "postprocessing")
        network = self._part(parser, "network")
        named = self._part(parser, "weights")
        path = weights_file(bundle, named)
        if path is None:
            raise InvalidModel(f"bundle/{named or 'models/model.pt'}", "is missing", "Add the weights to the bundle")
        if path.suffix in (".ts", ".jit"):
            network = _torchscript(path, trust_code=trust_code)
        else:
            settings = parts.tree[PARTS]
            load_into(network, path, key=settings.get("weights_key", "model"), strict=settings.get("strict", True))
        self._runner = Runner(network, self._device, precision=self._side.precision, compiled=self._side.compile)
        self._part(parser, "requires")
        self._inferer: Any = self._part(parser, "inferer") or SimpleInferer()
        loaded = self._part(parser, "loaded") or []
        keys = [key for loader in loaded for key in _listed(loader["keys"])]
        # What it is held against is there when it is trained and evaluated, not here.
        self._keys = list(dict.fromkeys(key for key in keys if key != CommonKeys.LABEL)) or [self._data.input]
        self._channel_axis = (
            0 if any(loader["channel_first"] for loader in loaded) else _channel_axis(self._preprocessing)
        )
        if len(self._keys) not in (1, len(self._side.inputs)):
            raise InvalidModel(
                "ainode.yaml: inputs",
                f"has {len(self._side.inputs)} series for the image keys {', '.join(self._keys)}",
                "Write one series for each key",
            )

    def _part(self, parser: ConfigParser, name: str) -> Any:
        try:
            return parser.get_parsed_content(f"{PARTS}::{name}", default=None)
        except _BUILDING as error:
            if out_of_memory(error):
                raise
            missing = _not_installed(error, f"{self._file}: {name}")
            if missing is not None:
                raise missing from error
            fix = "Mend the bundle, or override the key in ainode.yaml"
            raise InvalidModel(f"{self._file}: {name}", f"cannot be built: {causes(error)}", fix) from error

    def run(self, batch: Sequence[Sequence[Volume]], stage: Stage) -> list[Result | Exception]:
        """Transform each, infer those of one shape together, transform each back.

        Returns:
            For each of ``batch``, or the error that is its own. Segmentation: float32 (channels, slices, rows, columns)
            on the grid of the first volume; one channel may be a label map. Classification: (classes,), float32.
            Detection: `Boxes`.

        Raises:
            OutOfMemory: the device or the host had too little.
        """
        shapes = ", ".join(str(volumes[0].shape) for volumes in batch)
        with self._code(), memory(f"volume of {shapes} on {self._device}"), torch.inference_mode():
            stage("preprocess")
            items = [each for volumes in batch for each in self._prepare(volumes)]
            stage("infer")
            try:
                self._infer([item for item in items if item.error is None])
            except ImportError as error:
                raise _not_installed(error, f"{self._file}: network") or error from error
            stage("postprocess")
            for item in items:
                self._attempt(self._back, item)
            return [_joined([item for item in items if item.of is volumes]) for volumes in batch]

    def _prepare(self, volumes: Sequence[Volume]) -> list[_Item]:
        """What goes through the network by itself: a volume, or each frame of an image."""
        several = self._planar and len(volumes[0].sources) > 1
        items = [_Item(volumes, frames) for frames in (_frames(volumes) if several else [volumes])]
        for item in items:
            self._attempt(partial(self._preprocess, several=several), item)
        return items

    def _attempt(self, step: Callable[[_Item], None], item: _Item) -> None:
        """Take a step, unless one failed before; what fails here fails for this item alone."""
        if item.error is not None:
            return
        try:
            with memory(f"volume of {item.volumes[0].shape} on {self._device}"):
                step(item)
        except Exception as error:  # noqa: BLE001  (given to whoever asked for this item)
            item.error = _not_installed(error, self._file) or error

    def _preprocess(self, item: _Item, *, several: bool) -> None:
        if len(item.volumes) != len(self._side.inputs):
            raise Refused("too-few-series", f"{len(item.volumes)} series for {len(self._side.inputs)} inputs")
        if several and self._kind is not Kind.SEGMENTATION:
            frames = len(item.of[0].sources)
            raise Refused("several-frames", f"the image has {frames} frames, and the model gives one answer for one")
        item.content = _apply(self._preprocessing, self._feed(item.volumes))
        image = item.content[self._image_key]
        if self._flat and self._data.channels == _RGB and len(image) == 1:
            # A network of coloured images reads a grey one as all three of its channels.
            item.content[self._image_key] = image.repeat(_RGB, 1, 1)

    def _back(self, item: _Item) -> None:
        """From the network's output to the result on the grid of the first volume."""
        if self._kind is Kind.DETECTION:
            image = item.content[self._image_key]
            found = _apply(self._postprocessing, item.content)
            item.result = Boxes(found, np.asarray(image.affine, np.float64), self._postprocessing)
        else:
            self._can_invert(item.content)
            item.result = self._result(_apply(self._postprocessing, item.content), item.volumes[0])

    @property
    def _flat(self) -> bool:
        """Whether the network takes images of two dimensions."""
        return self._planar or (self._data.spatial_dims == 2 and not isinstance(self._inferer, SliceInferer))

    def _feed(self, volumes: Sequence[Volume]) -> dict[str, Any]:
        options: dict[str, Any] = {
            "resample": self._side.resample,
            "axcodes": self._side.axcodes,
            "channel_axis": self._channel_axis,
            "planar": self._flat,
        }
        if len(self._keys) == 1:
            images = [image_of(volumes, **options)]
        else:
            first = volumes[0]
            if not self._planar:  # images, as the views of a breast, share no grid
                volumes = [first, *(moved(other, first, resample=self._side.resample) for other in volumes[1:])]
            images = [image_of([each], **options) for each in volumes]
        # Transforms of some bundles ask for the metadata apart, as LoadImaged gives it with image_only: false.
        apart = {PostFix.meta(key): dict(image.meta) for key, image in zip(self._keys, images, strict=True)}
        return dict(zip(self._keys, images, strict=True)) | apart

    @property
    def _image_key(self) -> str:
        """Where the network's input is after the transforms: bundles that take several keys join them into one."""
        return self._data.input if len(self._keys) > 1 else self._keys[0]

    @property
    def _output_key(self) -> str:
        return self._side.output or self._data.output

    def _infer(self, items: Sequence[_Item]) -> None:
        """As MONAI's SupervisedEvaluator does: collate, infer, decollate; those of one shape together."""
        if self._kind is Kind.DETECTION:
            for item in items:
                self._attempt(self._detect, item)
            return
        key = self._image_key
        of_shape: dict[tuple[int, ...], list[_Item]] = {}
        for item in items:
            of_shape.setdefault(tuple(item.content[key].shape), []).append(item)
        for alike in of_shape.values():
            batch = list_data_collate([{key: item.content[key]} for item in alike])[key]
            prediction = self._runner(self._inferer, batch)
            decollated = decollate_batch({key: batch, self._output_key: prediction})
            for item, content in zip(alike, decollated, strict=True):
                item.content |= content

    def _detect(self, item: _Item) -> None:
        image = item.content[self._image_key]
        # Detectors take a list of images, and cut them into windows by an inferer of their own.
        sliding = getattr(getattr(self._inferer, "detector", None), "inferer", None)
        found = self._runner(
            lambda images, network: self._inferer(list(images), network)[0],
            image[None],
            sliding if isinstance(sliding, SlidingWindowInferer) else None,
        )
        item.content = {**found, self._image_key: image}

    def _result(self, item: dict[str, Any], volume: Volume) -> NDArray[np.float32]:
        key = self._output_key
        if key not in item:
            fix = f"Write one of {', '.join(sorted(map(str, item)))}"
            raise InvalidModel("ainode.yaml: output", f"the post-processing leaves no {key!r}", fix)
        result = item[key]
        if self._kind is Kind.CLASSIFICATION:
            return np.asarray(torch.as_tensor(result).cpu(), np.float32).reshape(-1)
        if result.ndim < _IMAGE:
            problem = f"is {self._kind}, and the result is {tuple(result.shape)}: no image"
            raise InvalidModel("ainode.yaml: kind", problem, f"Write {Kind.CLASSIFICATION}, if it is one")
        if not isinstance(result, MetaTensor):
            image = item[self._image_key]
            result = MetaTensor(torch.as_tensor(result), affine=image.affine)
            item[key] = result
        if not on_grid(result, volume) and not self._inverts() and result.shape[1:] == item[self._image_key].shape[1:]:
            back: Any = Invertd(key, self._preprocessing, orig_keys=self._image_key, nearest_interp=True)
            result = back(item)[key]
        return back_on_grid(result, volume)

    def _can_invert(self, content: dict[str, Any]) -> None:
        """MONAI warns and leaves the result where it is; it would be resampled from a place that is not its own."""
        inverse = [step for step in _steps(self._postprocessing) if isinstance(step, Invertd)]
        for key in (key for step in inverse for key in step.orig_keys if key not in content):
            fix = f"Override orig_keys with one of {', '.join(self._keys)}"
            raise InvalidModel(f"{self._file}: postprocessing", f"inverts what was done to {key!r}: not there", fix)

    def _inverts(self) -> bool:
        return any(isinstance(transform, Invertd) for transform in _steps(self._postprocessing))


def _not_installed(error: Exception, where: str) -> Unavailable | None:
    """What to say where a package is missing that MONAI, or the bundle, imports as late as it is used."""
    told = (each.value if isinstance(each, ErrorDuringImport) else each for each in chain(error))
    missing = next((str(each).splitlines()[0] for each in told if isinstance(each, ImportError)), None)
    return None if missing is None else Unavailable(f"{where}: needs what is not installed: {missing}")


def _apply(transform: Compose | None, item: dict[str, Any]) -> dict[str, Any]:
    """Apply transforms that may also name what only training has, such as a label."""
    if transform is None:
        return item
    maps = any(isinstance(step, MapTransform) for step in _steps(transform))
    with allow_missing_keys_mode(transform) if maps else nullcontext():
        applied: dict[str, Any] = transform(item)
        return applied


def _channel_axis(transform: Compose | None) -> int | None:
    """Where the bundle says that the files it reads have their channels; None where it does not."""
    for step in _steps(transform):
        if isinstance(step, EnsureChannelFirstd):
            axis = step.adjuster.input_channel_dim
            return axis if isinstance(axis, int) else None
    return None


def _steps(transform: Any) -> Sequence[Any]:
    """The transforms that a Compose holds, of every depth; one that is none is itself."""
    if not isinstance(transform, Compose):
        return [] if transform is None else [transform]
    steps: Sequence[Any] = transform.flatten().transforms  # type: ignore[no-untyped-call]
    return steps


def _torchscript(path: Path, *, trust_code: bool) -> torch.nn.Module:
    if not trust_code:
        raise InvalidModel(
            f"bundle/models/{path.name}",
            "is TorchScript, which is code",
            "Give the weights as .safetensors or .pt, or trust its code (--trust-code)",
        )
    network: torch.nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    return network


def _listed(keys: Any) -> list[str]:
    return [str(key) for key in keys] if isinstance(keys, (list, tuple)) else [str(keys)]
