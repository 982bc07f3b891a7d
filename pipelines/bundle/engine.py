"""A bundle's network and transforms, built by MONAI from its own configuration, and run on a Volume.

Imported by name in ``load`` only: it brings torch and MONAI.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import decollate_batch, list_data_collate
from monai.inferers.inferer import SimpleInferer, SliceInferer
from monai.transforms.compose import Compose
from monai.transforms.post.dictionary import Invertd
from monai.transforms.transform import MapTransform
from monai.transforms.utils import allow_missing_keys_mode
from numpy.typing import NDArray

from node.domain.errors import InvalidModel, Unavailable
from node.domain.volume import Volume
from pipelines.bundle.checkpoint import load_into, weights_file
from pipelines.bundle.config import PARTS, Parts
from pipelines.bundle.live import confirm
from pipelines.bundle.metadata import DataFormat
from pipelines.bundle.own_code import OwnCode
from pipelines.bundle.place import back_on_grid, image_of, on_grid
from pipelines.bundle.safety import examine
from pipelines.bundle.sidefile import Kind, SideFile
from pipelines.contract import Stage
from pipelines.runtime import Runner, causes, chain, memory, out_of_memory

# What MONAI raises while it builds from a configuration.
_BUILDING = (RuntimeError, ValueError, KeyError, TypeError, ImportError, AttributeError, NameError)


@dataclass(frozen=True, eq=False)
class Boxes:
    """What a detector found: ``item`` has boxes, labels and scores; ``affine`` is that of the analysed image (RAS)."""

    item: dict[str, Any]
    affine: NDArray[np.float64]
    postprocessing: Compose | None


class Engine:
    """One bundle, loaded to a device.

    Args:
        bundle: the bundle's directory.
        parts: its configuration, cut down by `pipelines.bundle.config.parts`.
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
        trust_code: bool,
    ) -> None:
        self._side, self._data, self._device, self._file, self._kind = side, data, device, parts.file, kind
        self._own = OwnCode(bundle) if trust_code else None
        if not trust_code:
            use = examine(parts.tree, parts.file)
            if use.problems:
                raise use.problems[0]
            confirm(use, parts.file)
        with self._code(), memory(f"loading to {device}"):
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
        keys = [key for loader in loaded for key in _listed(loader["keys"])] or [self._data.input]
        self._keys = list(dict.fromkeys(keys))
        self._channel_first = any(loader["channel_first"] for loader in loaded)
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
            missing = next((str(e).splitlines()[0] for e in chain(error) if isinstance(e, ImportError)), None)
            if missing is not None:
                raise Unavailable(f"{self._file}: {name}: needs what is not installed: {missing}") from error
            fix = "Mend the bundle, or override the key in ainode.yaml"
            raise InvalidModel(f"{self._file}: {name}", f"cannot be built: {causes(error)}", fix) from error

    def run(self, volumes: Sequence[Volume], stage: Stage) -> NDArray[np.float32] | Boxes:
        """Transform, infer, transform back.

        Returns:
            Segmentation: (channels, slices, rows, columns), float32, on the grid of the first volume; one channel may
            be a label map. Classification: (classes,), float32. Detection: `Boxes`.

        Raises:
            Refused: the series do not fit together.
            OutOfMemory: the device or the host had too little.
        """
        with self._code(), memory(f"volume of {volumes[0].shape} on {self._device}"), torch.inference_mode():
            stage("preprocess")
            item = _apply(self._preprocessing, self._feed(volumes))
            stage("infer")
            if self._kind is Kind.DETECTION:
                return self._detect(item, stage)
            item = self._infer(item)
            stage("postprocess")
            item = _apply(self._postprocessing, item)
            return self._result(item, volumes[0])

    def _feed(self, volumes: Sequence[Volume]) -> dict[str, Any]:
        planar = self._data.spatial_dims == 2 and not isinstance(self._inferer, SliceInferer)
        options: dict[str, Any] = {
            "resample": self._side.resample,
            "axcodes": self._side.axcodes,
            "channel_first": self._channel_first,
            "planar": planar,
        }
        if len(self._keys) == 1:
            return {self._keys[0]: image_of(volumes, **options)}
        together = image_of(volumes, **{**options, "channel_first": False})
        item: dict[str, Any] = {}
        for n, key in enumerate(self._keys):
            item[key] = image_of([volumes[0]], **options)
            item[key].copy_(together[n] if item[key].shape == together[n].shape else together[n][None])
        return item

    @property
    def _image_key(self) -> str:
        """Where the network's input is after the transforms: bundles that take several keys join them into one."""
        return self._data.input if len(self._keys) > 1 else self._keys[0]

    @property
    def _output_key(self) -> str:
        return self._side.output or self._data.output

    def _infer(self, item: dict[str, Any]) -> dict[str, Any]:
        """As MONAI's SupervisedEvaluator does: collate, infer, decollate."""
        key = self._image_key
        batch = list_data_collate([{key: item[key]}])[key]
        prediction = self._runner(self._inferer, batch)
        decollated: dict[str, Any] = decollate_batch({key: batch, self._output_key: prediction})[0]
        return decollated

    def _detect(self, item: dict[str, Any], stage: Stage) -> Boxes:
        image = item[self._image_key]
        found = self._inferer([image.to(self._device)], self._runner.network)[0]
        stage("postprocess")
        affine = np.asarray(image.affine, np.float64)
        found = _apply(self._postprocessing, {**found, self._image_key: image})
        return Boxes(found, affine, self._postprocessing)

    def _result(self, item: dict[str, Any], volume: Volume) -> NDArray[np.float32]:
        key = self._output_key
        if key not in item:
            fix = f"Write one of {', '.join(sorted(map(str, item)))}"
            raise InvalidModel("ainode.yaml: output", f"the post-processing leaves no {key!r}", fix)
        result = item[key]
        if self._kind is Kind.CLASSIFICATION:
            return np.asarray(torch.as_tensor(result).cpu(), np.float32).reshape(-1)
        if not isinstance(result, MetaTensor):
            image = item[self._image_key]
            result = MetaTensor(torch.as_tensor(result), affine=image.affine)
            item[key] = result
        if not on_grid(result, volume) and not self._inverts() and result.shape[1:] == item[self._image_key].shape[1:]:
            back: Any = Invertd(key, self._preprocessing, orig_keys=self._image_key, nearest_interp=True)
            result = back(item)[key]
        return back_on_grid(result, volume)

    def _inverts(self) -> bool:
        return any(isinstance(transform, Invertd) for transform in _steps(self._postprocessing))


def _apply(transform: Compose | None, item: dict[str, Any]) -> dict[str, Any]:
    """Apply transforms that may also name what only training has, such as a label."""
    if transform is None:
        return item
    maps = any(isinstance(step, MapTransform) for step in _steps(transform))
    with allow_missing_keys_mode(transform) if maps else nullcontext():
        applied: dict[str, Any] = transform(item)
        return applied


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
            "Give the weights as .safetensors or .pt, or trust the code of this version",
        )
    network: torch.nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    return network


def _listed(keys: Any) -> list[str]:
    return [str(key) for key in keys] if isinstance(keys, (list, tuple)) else [str(keys)]
