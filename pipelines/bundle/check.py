"""What is wrong with a bundle and its side file, by file and key, without loading anything of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from node.domain.errors import InvalidModel
from pipelines.bundle.config import PARTS, Parts, parts, read_config, read_metadata
from pipelines.bundle.metadata import DataFormat, data_format
from pipelines.bundle.pipeline import BUNDLE
from pipelines.bundle.safety import examine
from pipelines.bundle.sidefile import Kind, Measure, SideFile, read_side_file

_WEIGHTS = (".pt", ".pth", ".safetensors", ".ts", ".jit")


def problems(directory: Path, *, trust_code: bool = False) -> list[str]:
    """Everything that speaks against a version; an empty list when nothing does.

    What only MONAI itself can tell (an unknown name, arguments that do not fit) shows when the version is loaded.

    Args:
        directory: holds ``bundle/`` and ``ainode.yaml``; ``version.json`` need not be there yet.
        trust_code: as it will be run.
    """
    return [str(problem) for problem in _problems(directory, trust_code=trust_code)]


def _problems(directory: Path, *, trust_code: bool) -> Iterator[InvalidModel]:
    bundle = directory / BUNDLE
    if not bundle.is_dir():
        yield InvalidModel(BUNDLE, "is missing", "Put the bundle into the directory bundle, as it was published")
        return
    try:
        data = data_format(read_metadata(bundle))
    except InvalidModel as problem:
        yield problem
        return
    side: SideFile | None = None
    try:
        side = read_side_file(directory)
        yield from _outputs(side, data)
    except InvalidModel as problem:
        yield problem
    try:
        config, file = read_config(bundle, side.overrides if side else {})
        wanted = parts(config, file, trust_code=trust_code)
    except InvalidModel as problem:
        yield problem
        return
    if not trust_code:
        yield from examine(wanted.tree, file).problems
    yield from _weights(bundle, wanted, trust_code=trust_code)


def _outputs(side: SideFile, data: DataFormat) -> Iterator[InvalidModel]:
    """Channels of the image, and outputs that the bundle names and the side file does not."""
    if len(side.inputs) not in (1, data.channels) and data.channels > 1:
        yield InvalidModel(
            "ainode.yaml: inputs",
            f"has {len(side.inputs)} series, and metadata.json names {data.channels} channels",
            "Write one series for each channel",
        )
    kind = side.kind_of(data.kind)
    if side.planar(data.spatial_dims) and any(
        Measure.VOLUME in (each or ()) for each in (side.measure, *(label.measure for label in side.labels))
    ):
        fix = f"Write {Measure.AREA.value}"
        yield InvalidModel("ainode.yaml: measure", f"an image has no {Measure.VOLUME.value}", fix)
    if side.unlisted != "refuse" or kind is Kind.DETECTION:
        return
    listed = {label.index for label in side.labels} | set(side.ignore)
    for index, name in sorted(data.meanings.items()):
        if index not in listed:
            yield InvalidModel(
                "ainode.yaml: labels",
                f"metadata.json names output {index} {name!r}, which has no entry",
                "Add one, add the number to ignore, or write unlisted: generic",
            )


def _weights(bundle: Path, wanted: Parts, *, trust_code: bool) -> Iterator[InvalidModel]:
    found = [p for p in (bundle / "models").glob("*") if p.suffix in _WEIGHTS]
    if not found:
        fix = f"Add the weights to bundle/models, as {', '.join(_WEIGHTS[:3])}"
        yield InvalidModel("bundle/models", "holds no weights", fix)
    elif not trust_code and str(wanted.tree[PARTS].get("weights", "")).rstrip("'\"").endswith((".ts", ".jit")):
        fix = "Override the load_path with a .pt or .safetensors file, or trust its code (--trust-code)"
        yield InvalidModel(f"{wanted.file}: load_path", "is TorchScript, which is code", fix)
