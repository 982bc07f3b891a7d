"""One side of the comparison, in a fresh process: one study, from its files to probabilities on its own grid.

    python bench/engines/side.py ainode VERSION SERIES OUT.npy
    python bench/engines/side.py monai VERSION IMAGE.nii OUT.npy

Prints ``start`` and ``end`` with the clock and the processor time of the process, around reading, the transforms and
the network. What comes before, imports and the weights, is the same on both sides.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def _say(word: str) -> None:
    print(word, time.perf_counter(), time.process_time(), flush=True)


def ainode(version: Path, series: Path, out: Path) -> None:
    """As a worker's process does: the files with the digests of the receiver, which reading checks."""
    import numpy as np

    from node.offline import study_of
    from pipelines.bundle.pipeline import BundlePipeline
    from pipelines.read.selected import read

    study = study_of(series)
    pipeline = BundlePipeline(version, trust_code=False)
    pipeline.load("cpu")
    _say("start")
    (result,) = pipeline._engine.run([read(pipeline.select(study))], lambda stage: None)
    _say("end")
    if isinstance(result, Exception):
        raise result
    # Channels, columns, rows, slices, as MONAI's.
    np.save(out, result.transpose(0, 3, 2, 1))


def monai(version: Path, image: Path, out: Path) -> None:
    """The function behind ``python -m monai.bundle run``; the bundle itself says when it starts and ends."""
    from monai.bundle import run

    bundle = version / "bundle"
    run(
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        bundle_root=str(bundle),
        image=str(image),
        out=str(out),
    )


if __name__ == "__main__":
    sys.path[0] = str(_ROOT)
    side, *given = sys.argv[1:]
    {"ainode": ainode, "monai": monai}[side](*map(Path, given))
