"""Which names a bundle's configuration may use without being trusted, as data.

An allow-list: networks, transforms and inferers of MONAI, arithmetic of torch and numpy, paths. What reads or writes
files, starts programs, imports by name or unpickles is not on it.
"""

from __future__ import annotations

import sys

# Every public name below these packages, as long as it is defined there.
PACKAGES = (
    "monai.apps.deepedit",
    "monai.apps.detection",
    "monai.apps.nuclick",
    "monai.apps.pathology.transforms",
    "monai.apps.vista3d",
    "monai.data.box_utils",
    "monai.inferers",
    "monai.networks.blocks",
    "monai.networks.layers",
    "monai.networks.nets",
    "monai.transforms",
    "monai.utils.CommonKeys",
    "monai.utils.enums",
    "pipelines.bundle.detection",
    "torch.nn",
)

# What the names end with that are refused all the same: they read or write files, or pass a call on to other packages.
_FILE_TRANSFORMS = ("LoadImage", "SaveImage", "SaveClassification", "WriteFileMapping")
_FOREIGN_TRANSFORMS = ("TorchIO", "RandTorchIO", "TorchVision", "RandTorchVision", "CuCIM", "RandCuCIM")
REFUSED_NAMES = frozenset(
    f"{name}{suffix}" for name in (*_FILE_TRANSFORMS, *_FOREIGN_TRANSFORMS) for suffix in ("", "d", "D", "Dict")
)

_MONAI = """
    monai.data.MetaTensor monai.data.decollate_batch monai.data.list_data_collate monai.data.no_collation
    monai.data.pad_list_data_collate monai.data.utils.decollate_batch monai.data.utils.list_data_collate
    monai.data.utils.no_collation monai.data.utils.pad_list_data_collate monai.data.meta_tensor.MetaTensor
    monai.utils.set_determinism monai.utils.misc.set_determinism monai.utils.ensure_tuple monai.utils.ensure_tuple_rep
"""
_TORCH = """
    bfloat16 bool double float float16 float32 float64 half int int16 int32 int64 int8 long short uint8 device Size
    Tensor tensor as_tensor from_numpy zeros ones full arange linspace zeros_like ones_like full_like empty eye
    cat concat stack where argmax argmin softmax sigmoid relu tanh exp log sqrt pow abs clamp clip round floor ceil sum
    mean std median max min amax amin maximum minimum prod any all unique nonzero flip permute transpose squeeze
    unsqueeze reshape logical_and logical_or logical_not isnan isfinite nan_to_num bincount count_nonzero sort topk
    channels_last channels_last_3d contiguous_format preserve_format
    cuda.is_available cuda.device_count backends.mps.is_available manual_seed
"""
_NUMPY = """
    bool_ float16 float32 float64 int16 int32 int64 int8 uint16 uint32 uint64 uint8 array asarray zeros ones full arange
    linspace eye diag concatenate stack where argmax argmin exp log sqrt power abs clip round floor ceil sum mean std
    median max min maximum minimum prod any all unique isnan isfinite nan_to_num pi inf nan newaxis
"""
_STANDARD = """
    os.path.join os.path.exists os.path.isfile os.path.isdir os.path.basename os.path.dirname os.path.abspath
    os.path.normpath os.path.splitext os.sep glob.glob copy.copy copy.deepcopy functools.partial functools.reduce
    math.ceil math.floor math.sqrt math.log math.exp math.pi math.inf math.prod math.isclose
"""

FUNCTIONS = frozenset(
    [
        *_MONAI.split(),
        *_STANDARD.split(),
        *(f"torch.{name}" for name in _TORCH.split()),
        *(f"numpy.{name}" for name in _NUMPY.split()),
    ]
)

_BUILTINS = """
    abs all any bool dict enumerate filter float int isinstance len list map max min range reversed round set slice
    sorted str sum tuple zip
"""
BUILTINS = frozenset(_BUILTINS.split())

# Modules that may be imported; an import of another is dropped, and what uses it refused.
IMPORTS = frozenset({"copy", "functools", "glob", "math", "monai", "numpy", "os", "torch"})

# Names of values, whatever these are, that lead out: frames, code, files, formatting by attribute. (``eval`` is a
# method of every network, and ``load_state_dict`` takes a dictionary.)
_REFUSED_ATTRIBUTES = """
    dump dumps exec execv execve format format_map fork kill load loads mro open popen remove rename
    rmdir run save savez spawn spawnl spawnv startfile system tofile unlink write write_bytes write_text
"""
REFUSED_ATTRIBUTES = frozenset(_REFUSED_ATTRIBUTES.split())
REFUSED_ATTRIBUTE_PREFIXES = ("_", "ag_", "co_", "cr_", "f_", "gi_", "tb_")

# A module of another package within a path is an import of that module's, and leads out. MONAI has modules of its own
# with these names of the standard library.
_NAMESAKES = frozenset({"array", "signal"})
LEADS_OUT = (frozenset(sys.stdlib_module_names) - _NAMESAKES) | {
    *("hub", "jit", "monai", "np", "numpy", "torch", "utils_create_transform_ims")
}


def allowed(path: str) -> bool:
    """Whether a dotted path is on the list; ``numpy`` is spelt out."""
    if path in FUNCTIONS:
        return True
    parts = path.split(".")
    if any(part.startswith("_") or part in REFUSED_NAMES for part in parts):
        return False
    return any(path.startswith(f"{package}.") for package in PACKAGES) and not LEADS_OUT & set(parts[1:])
