"""The measures of CT lung densitometry, and the codes they carry.

LAA-950 is the share of lung voxels below (not at) −950 HU: the density mask of Müller et al. (Chest 1988;94:782) with
the threshold that Gevenois et al. validated against pathology on thin slices (Am J Respir Crit Care Med 1995;152:653
and 1996;154:187). Perc15 is the 15th percentile of the distribution of lung CT numbers (Dirksen et al., Am J Respir
Crit Care Med 1999;160:1468; Parr et al., Respir Res 2008;9:21), here not corrected for lung volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.domain.finding import Code, Evaluation, Findings, Measurement, Region
from node.domain.volume import Volume
from pipelines.lung_density_ct.manifest import TITLE
from pipelines.lung_density_ct.segment import Lungs

LOW_ATTENUATION_HU = -950.0
# Thicker slices average emphysema away; the −950 HU threshold was validated on slices of 1 mm.
THIN_SLICES_MM = 1.5
# The smaller healthy lung holds about 45 % of the whole. Below this share of the larger one, something is amiss.
ASYMMETRY_RATIO = 0.6

_SCHEME = "99AINODE"
_ML = Code("ml", "UCUM", "milliliter")
_HU = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
_PERCENT = Code("%", "UCUM", "Percent")
_VOLUME = Code("118565006", "SCT", "Volume")
_VOXEL_SUM = Code("126030", "DCM", "Sum of segmented voxel method for volume")
_MEAN_ATTENUATION = Code("112181", "DCM", "Mean Attenuation Coefficient")
# No standard scheme has a code for these two; the name that radiologists know comes first, as viewers cut it.
_LAA950 = Code("LAA-950", _SCHEME, "LAA-950 (below -950 HU)")
_PERC15 = Code("PERC15", _SCHEME, "Perc15 (15th percentile)")

_ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_LUNG = Code("39607008", "SCT", "Lung")
_LUCENCY = Code("112084", "DCM", "Lucency")
_LEFT = Code("7771000", "SCT", "Left")
_RIGHT = Code("24028007", "SCT", "Right")
_BOTH = Code("51440002", "SCT", "Bilateral")
_YES = Code("373066001", "SCT", "Yes")
_NO = Code("373067005", "SCT", "No")
_WHOLE = Code("LUNGS-WHOLE", _SCHEME, "Lungs wholly within the scan")
_THIN = Code("THIN-SLICES", _SCHEME, f"Slices at most {THIN_SLICES_MM} mm apart, as LAA-950 asks for")
_ASYMMETRIC = Code("ASYMMETRY", _SCHEME, "Marked asymmetry of aerated lung volume")
# CID 100 names no chest CT; this is its entry for a CT of any region.
_PROCEDURE = Code("25045-6", "LN", "CT unspecified body region")

LUNG_WINDOW = (-600.0, 1500.0)


@dataclass(frozen=True)
class Densitometry:
    """Of one lung, or of both: millilitres, HU, percent, HU."""

    volume_ml: float
    mean_hu: float
    laa950_percent: float
    perc15_hu: float


def densitometry(hu: NDArray[np.float32], voxel_ml: float) -> Densitometry:
    """Measure the CT numbers of the voxels of a lung; ``hu`` is one-dimensional and not empty."""
    return Densitometry(
        volume_ml=hu.size * voxel_ml,
        mean_hu=float(hu.mean(dtype=np.float64)),
        laa950_percent=float(100.0 * np.count_nonzero(hu < LOW_ATTENUATION_HU) / hu.size),
        perc15_hu=float(np.percentile(hu, 15)),
    )


def findings(volume: Volume, lungs: Lungs) -> Findings:
    """Measure both lungs and say what limits the numbers."""
    both = lungs.left | lungs.right
    low = both & (volume.voxels < LOW_ATTENUATION_HU)
    left, right = lungs.left.sum() * volume.voxel_ml, lungs.right.sum() * volume.voxel_ml
    asymmetric = bool(min(left, right) < ASYMMETRY_RATIO * max(left, right))
    whole = _within(both)
    regions = [_lung("lungs", "Lungs", both, _BOTH, (160, 160, 160), volume, in_segmentation=False)]
    if left:
        regions.append(_lung("lung_left", "Left lung", lungs.left, _LEFT, (230, 120, 90), volume))
    if right:
        regions.append(_lung("lung_right", "Right lung", lungs.right, _RIGHT, (90, 150, 230), volume))
    if low.any():
        regions.append(_low_attenuation(low, volume))
    return Findings(
        volume=volume,
        procedure=_PROCEDURE,
        regions=tuple(regions),
        evaluations=(
            Evaluation(_WHOLE, _answer(whole)),
            Evaluation(_THIN, _answer(volume.spacing[0] <= THIN_SLICES_MM)),
            Evaluation(_ASYMMETRIC, _answer(asymmetric)),
        ),
        window=LUNG_WINDOW,
        title=TITLE,
        notes=tuple(_notes(volume, lungs, low=bool(low.any()), whole=whole, left_ml=left, right_ml=right)),
    )


def _lung(
    key: str,
    label: str,
    mask: NDArray[np.bool_],
    laterality: Code,
    colour: tuple[int, int, int],
    volume: Volume,
    *,
    in_segmentation: bool = True,
) -> Region:
    numbers = densitometry(volume.voxels[mask], volume.voxel_ml)
    return Region(
        key=key,
        label=label,
        mask=mask,
        category=_ANATOMY,
        type=_LUNG,
        site=_LUNG,
        laterality=laterality,
        colour=colour,
        measurements=(
            Measurement("volume_ml", _VOLUME, numbers.volume_ml, _ML, method=_VOXEL_SUM),
            Measurement("mean_hu", _MEAN_ATTENUATION, numbers.mean_hu, _HU),
            Measurement("laa950_percent", _LAA950, numbers.laa950_percent, _PERCENT, digits=2),
            Measurement("perc15_hu", _PERC15, numbers.perc15_hu, _HU),
        ),
        in_segmentation=in_segmentation,
    )


def _low_attenuation(mask: NDArray[np.bool_], volume: Volume) -> Region:
    ml = float(np.count_nonzero(mask)) * volume.voxel_ml
    return Region(
        key="low_attenuation",
        label="Low attenuation (below -950 HU)",
        mask=mask,
        category=_ABNORMAL,
        type=_LUCENCY,
        site=_LUNG,
        laterality=_BOTH,
        colour=(255, 220, 60),
        measurements=(Measurement("volume_ml", _VOLUME, ml, _ML, method=_VOXEL_SUM),),
    )


def _within(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask touches no face of the volume."""
    return not any(mask.take(end, axis).any() for axis in range(3) for end in (0, -1))


def _answer(yes: bool) -> Code:
    return _YES if yes else _NO


def _notes(volume: Volume, lungs: Lungs, *, low: bool, whole: bool, left_ml: float, right_ml: float) -> list[str]:
    notes = [
        "Lung is what is aerated (below -500 HU) and the vessels and small nodules enclosed in it; trachea and main "
        "bronchi are left out. LAA-950 counts voxels below, not at, -950 HU.",
        "CT numbers depend on inspiration, kernel, dose and scanner; the numbers are not corrected for them.",
    ]
    if not low:
        notes.append("No voxel of the lungs lies below -950 HU, so there is no low attenuation region.")
    if not whole:
        notes.append("A lung touches the edge of the scan: its volume is too small by what lies outside.")
    if volume.spacing[0] > THIN_SLICES_MM:
        notes.append(
            f"Slices lie {volume.spacing[0]:.1f} mm apart; LAA-950 is validated on slices of about 1 mm and is "
            "lower on thicker ones."
        )
    smaller, larger = sorted((left_ml, right_ml))
    if smaller < ASYMMETRY_RATIO * larger:
        side = "left" if left_ml < right_ml else "right"
        notes.append(
            f"The {side} lung holds {smaller:.0f} ml of aerated lung against {larger:.0f} ml on the other side. "
            "Opacified or collapsed lung is not aerated and is not measured."
        )
    if not lungs.airway_found:
        notes.append("No trachea was found; the lungs may include parts of the airways.")
    return notes
