"""The anatomy of a chest-CT phantom: analytic shapes in patient coordinates, sampled on any grid, with its exact truth.

What counts as lung is what `lung_density_ct` claims to measure: parenchyma, emphysema and the vessels that lie wholly
inside the lung; not the trachea, the main bronchi and their walls. The truth is counted on the voxels of the grid, so
it holds for that grid without any partial volume error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AIR_HU = -1000.0
SOFT_TISSUE_HU = 40.0
BONE_HU = 300.0
TABLE_SHELL_HU = -100.0
TABLE_CORE_HU = -950.0
LOW_ATTENUATION_HU = -950.0

# Millimetres, LPS, origin at the middle of the scan. A large adult chest in inspiration.
_BODY_SEMI_AXES = (165.0, 110.0)
_LEFT_LUNG = ((80.0, 5.0, 5.0), (52.0, 76.0, 112.0))
_RIGHT_LUNG = ((-78.0, 5.0, 0.0), (58.0, 80.0, 118.0))
_CARINA = (0.0, 8.0, 20.0)
_TRACHEA_TOP = (0.0, 8.0, 400.0)
_LEFT_HILUM = (45.0, 8.0, -10.0)
_RIGHT_HILUM = (-38.0, 8.0, -12.0)
_TRACHEA_RADIUS, _BRONCHUS_RADIUS, _AIRWAY_WALL = 9.0, 6.5, 2.5
_SPINE = ((0.0, 62.0), 20.0)
_TABLE_TOP, _TABLE_HEIGHT, _TABLE_HALF_WIDTH, _TABLE_SHELL = 116.0, 22.0, 160.0, 4.0
_VESSEL_RADIUS, _VESSEL_HALF_LENGTH = 3.0, 45.0
_VESSELS = ((-25.0, -30.0), (-20.0, 25.0), (0.0, -10.0), (15.0, 30.0), (22.0, -25.0))  # from the lung's centre
_EMPHYSEMA_PITCH = 22.0
_EMPHYSEMA_KEPT_FROM_AIRWAYS = 12.0


@dataclass(frozen=True)
class PhantomSpec:
    """What phantom to make.

    Args:
        shape: (slices, rows, columns).
        spacing: mm between slices, rows and columns.
        row_cosines, column_cosines: ImageOrientationPatient (PS3.3 C.7.6.2.1.1).
        tilt_degrees: gantry tilt: each slice is shifted along the columns, as a tilted gantry does.
        emphysema_left, emphysema_right: wanted share (0 to 0.5) of the lung at `emphysema_hu`; the truth is counted.
        noise_hu: standard deviation of the noise; up to about 5 it moves no voxel across a threshold.
        lungs: False gives a body without lungs and airways.
        joined: True opens a bridge of parenchyma between the lungs, as a thin anterior junction line does.
        seed: of the noise, and of every UID when the phantom is written as DICOM.
    """

    shape: tuple[int, int, int] = (120, 256, 256)
    spacing: tuple[float, float, float] = (2.5, 1.4, 1.4)
    row_cosines: tuple[float, float, float] = (1.0, 0.0, 0.0)
    column_cosines: tuple[float, float, float] = (0.0, 1.0, 0.0)
    tilt_degrees: float = 0.0
    parenchyma_hu: float = -860.0
    emphysema_hu: float = -980.0
    emphysema_left: float = 0.08
    emphysema_right: float = 0.20
    noise_hu: float = 4.0
    lungs: bool = True
    joined: bool = False
    seed: str = "phantom"


def oblique(degrees: float) -> dict[str, tuple[float, float, float]]:
    """The orientation arguments of a `PhantomSpec` whose axial plane is turned by ``degrees`` about the x axis."""
    angle = np.deg2rad(degrees)
    return {"row_cosines": (1.0, 0.0, 0.0), "column_cosines": (0.0, float(np.cos(angle)), float(np.sin(angle)))}


@dataclass(frozen=True, eq=False)
class LungTruth:
    """What is true of one lung, or of both: millilitres, percent below −950 HU, HU."""

    volume_ml: float
    laa950_percent: float
    mean_hu: float
    perc15_hu: float


@dataclass(frozen=True, eq=False)
class PhantomTruth:
    """Masks are (slices, rows, columns), bool, on the grid of the phantom."""

    total: LungTruth
    left: LungTruth
    right: LungTruth
    left_mask: NDArray[np.bool_]
    right_mask: NDArray[np.bool_]
    airway_mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Phantom:
    """``voxels``: (slices, rows, columns), int16, HU. ``affine`` as in `node.domain.volume.Volume`."""

    spec: PhantomSpec
    voxels: NDArray[np.int16]
    affine: NDArray[np.float64]
    truth: PhantomTruth


def make_phantom(spec: PhantomSpec | None = None) -> Phantom:
    """Sample the anatomy on the grid of ``spec``."""
    spec = spec or PhantomSpec()
    affine = _affine(spec)
    voxels = np.empty(spec.shape, np.int16)
    left, right, airway = (np.zeros(spec.shape, np.bool_) for _ in range(3))
    noise = np.random.default_rng(list(spec.seed.encode()))
    # One slice at a time: the coordinates of a whole volume would take twelve times the memory of its voxels.
    for k in range(spec.shape[0]):
        x, y, z = _slice_coordinates(spec, affine, k)
        hu, left[k], right[k], airway[k] = _sample(spec, x, y, z)
        if spec.noise_hu:
            hu = hu + noise.normal(0.0, spec.noise_hu, hu.shape)
        voxels[k] = np.clip(np.rint(hu), -1024, 3071)
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
    truth = PhantomTruth(
        total=_lung_truth(voxels[left | right], voxel_ml),
        left=_lung_truth(voxels[left], voxel_ml),
        right=_lung_truth(voxels[right], voxel_ml),
        left_mask=left,
        right_mask=right,
        airway_mask=airway,
    )
    return Phantom(spec, voxels, affine, truth)


def _affine(spec: PhantomSpec) -> NDArray[np.float64]:
    row, column = np.array(spec.row_cosines), np.array(spec.column_cosines)
    normal = np.cross(row, column)
    shift = np.tan(np.deg2rad(spec.tilt_degrees))
    affine = np.eye(4)
    affine[:3, 0] = (normal + shift * column) * spec.spacing[0]
    affine[:3, 1] = column * spec.spacing[1]
    affine[:3, 2] = row * spec.spacing[2]
    middle = (np.array(spec.shape) - 1) / 2
    affine[:3, 3] = -affine[:3, :3] @ middle
    # Patient coordinates come out as a scanner writes them, and exactly equally spaced after rounding.
    affine[:3, 3] = np.rint(affine[:3, 3] * 10) / 10
    return affine


def _slice_coordinates(spec: PhantomSpec, affine: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], ...]:
    rows = np.arange(spec.shape[1])[:, None]
    columns = np.arange(spec.shape[2])[None, :]
    return tuple(affine[n, 0] * k + affine[n, 1] * rows + affine[n, 2] * columns + affine[n, 3] for n in range(3))


def _sample(
    spec: PhantomSpec, x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """HU, left lung, right lung and airway lumen at these coordinates."""
    hu = np.full(x.shape, AIR_HU)
    hu[_table(x, y, 0.0)] = TABLE_SHELL_HU
    hu[_table(x, y, _TABLE_SHELL)] = TABLE_CORE_HU
    hu[(x / _BODY_SEMI_AXES[0]) ** 2 + (y / _BODY_SEMI_AXES[1]) ** 2 <= 1] = SOFT_TISSUE_HU
    hu[(x - _SPINE[0][0]) ** 2 + (y - _SPINE[0][1]) ** 2 <= _SPINE[1] ** 2] = BONE_HU
    if not spec.lungs:
        nothing = np.zeros(x.shape, np.bool_)
        return hu, nothing, nothing, nothing

    to_trachea = _distance_to_segment((x, y, z), _TRACHEA_TOP, _CARINA) - _TRACHEA_RADIUS
    to_bronchi = np.minimum(
        _distance_to_segment((x, y, z), _CARINA, _LEFT_HILUM),
        _distance_to_segment((x, y, z), _CARINA, _RIGHT_HILUM),
    )
    to_airway = np.minimum(to_trachea, to_bronchi - _BRONCHUS_RADIUS)
    spheres = _lattice_distance(x, y, z)
    sides = []
    for (centre, semi_axes), share in ((_LEFT_LUNG, spec.emphysema_left), (_RIGHT_LUNG, spec.emphysema_right)):
        u, v, w = x - centre[0], y - centre[1], z - centre[2]
        lung = (u / semi_axes[0]) ** 2 + (v / semi_axes[1]) ** 2 + (w / semi_axes[2]) ** 2 <= 1
        if spec.joined:
            bridge = (np.abs(y + 25) <= 6) & (np.abs(z) <= 40) & (np.sign(centre[0]) * x >= 0)
            lung |= bridge & (np.abs(x) < abs(centre[0]))
        lung &= to_airway > _AIRWAY_WALL
        hu[lung] = spec.parenchyma_hu
        radius = _EMPHYSEMA_PITCH * np.cbrt(3 * share / (4 * np.pi))
        hu[lung & (spheres <= radius) & (to_airway > _EMPHYSEMA_KEPT_FROM_AIRWAYS)] = spec.emphysema_hu
        for du, dv in _VESSELS:
            vessel = (u - du) ** 2 + (v - dv) ** 2 <= _VESSEL_RADIUS**2
            hu[lung & vessel & (np.abs(w) <= _VESSEL_HALF_LENGTH)] = SOFT_TISSUE_HU
        sides.append(lung)
    hu[to_airway <= _AIRWAY_WALL] = SOFT_TISSUE_HU
    lumen = to_airway <= 0
    hu[lumen] = AIR_HU
    return hu, sides[0], sides[1], lumen


def _table(x: NDArray[np.float64], y: NDArray[np.float64], inset: float) -> NDArray[np.bool_]:
    inside = np.abs(x) <= _TABLE_HALF_WIDTH - inset
    below = (y >= _TABLE_TOP + inset) & (y <= _TABLE_TOP + _TABLE_HEIGHT - inset)
    return np.asarray(inside & below, np.bool_)


def _distance_to_segment(
    point: tuple[NDArray[np.float64], ...], start: tuple[float, ...], end: tuple[float, ...]
) -> NDArray[np.float64]:
    a, d = np.array(start), np.array(end) - np.array(start)
    along = sum((point[n] - a[n]) * d[n] for n in range(3)) / float(d @ d)
    along = np.clip(along, 0.0, 1.0)
    return np.asarray(np.sqrt(sum((point[n] - a[n] - along * d[n]) ** 2 for n in range(3))))


def _lattice_distance(x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance to the nearest point of a cubic lattice: centrilobular emphysema is scattered like that."""
    total = np.zeros(x.shape)
    for coordinate in (x, y, z):
        total += (coordinate - _EMPHYSEMA_PITCH * np.rint(coordinate / _EMPHYSEMA_PITCH)) ** 2
    return np.sqrt(total)


def _lung_truth(hu: NDArray[np.int16], voxel_ml: float) -> LungTruth:
    if not hu.size:
        return LungTruth(0.0, 0.0, float("nan"), float("nan"))
    return LungTruth(
        volume_ml=hu.size * voxel_ml,
        laa950_percent=float(100.0 * np.count_nonzero(hu < LOW_ATTENUATION_HU) / hu.size),
        mean_hu=float(hu.mean()),
        perc15_hu=float(np.percentile(hu, 15)),
    )
