"""A bundle's inference configuration as data: read, its macros resolved, and cut down to what the node evaluates.

What a bundle says of files and engines (data lists, data loaders, evaluators, savers) is never evaluated: the node
feeds the image, runs the network and keeps the result. What remains is the network, the inferer, the transforms before
and after it and the place of the weights, with everything that these refer to. See the specification of MONAI bundles,
https://docs.monai.io/en/stable/mb_specification.html, and https://docs.monai.io/en/stable/config_syntax.html.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from node.domain.errors import InvalidModel
from pipelines.bundle.older import in_todays_words
from pipelines.bundle.safety import may_import, references

CONFIGS = Path("configs")
_INFERENCE = ("inference.json", "inference.yaml", "inference.yml")
# The node's own key: MONAI evaluates it like any other.
PARTS = "ainode_parts"
_SUFFIX = re.compile(r"(.*\.(?:json|yaml|yml))?(?:::)?(.*)")
_RELATIVE = re.compile(r"[@%](?:::)+")
_LOADERS = re.compile(r"(?:.*\.)?LoadImage(d|D|Dict)?")
_WRITERS = re.compile(r"(?:.*\.)?(?:SaveImage|SaveClassification|WriteFileMapping)(d|D|Dict)?")
# Knows upright boxes only; the node maps the corners of a box into the patient by itself.
_TO_WORLD = re.compile(r"(?:.*\.)?AffineBoxToWorldCoordinate(d|D|Dict)?")
_CHECKPOINT = re.compile(r"(?:.*\.)?CheckpointLoader")
_NOTHING: Mapping[str, Any] = {"_target_": "monai.transforms.Identity", "_disabled_": True}
_A_GPU = re.compile(r"\$torch\.device\([^()]*cuda[^()]*(\(\)[^()]*)*\)")
# Within an expression: the device that a bundle was published from.
_THEIR_GPU = re.compile(r"""torch\.device\(\s*(['"])cuda(:\d+)?\1\s*\)""")


@dataclass(frozen=True)
class Parts:
    """What is evaluated. ``tree`` has it below `PARTS`, beside all that it refers to.

    ``file`` is the name of the configuration within the version's directory.
    """

    tree: dict[str, Any]
    file: str


def read_metadata(bundle: Path) -> dict[str, Any]:
    """``configs/metadata.json``. Raises ``InvalidModel`` when it is missing or no JSON object."""
    return _read(bundle, CONFIGS / "metadata.json")


def read_config(bundle: Path, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The inference configuration, overridden, without macros and relative references; and its name.

    Args:
        overrides: values by key as ``monai.bundle run`` takes them, for instance ``inferer#sw_batch_size``.

    Raises:
        InvalidModel: there is none, it cannot be read, or a macro, a reference or an override leads nowhere.
    """
    found = [CONFIGS / name for name in _INFERENCE if (bundle / CONFIGS / name).is_file()]
    if not found:
        raise InvalidModel("bundle/configs", "holds no inference configuration", f"Add one of {', '.join(_INFERENCE)}")
    config = _read(bundle, found[0])
    config["bundle_root"] = str(bundle.absolute())
    config["_meta_"] = read_metadata(bundle)
    for key, value in overrides.items():
        _override(config, key, value)
    file = _name(found[0])
    return _Macros(bundle, config, file).resolve(), file


def parts(config: dict[str, Any], file: str, *, trust_code: bool) -> Parts:
    """Cut a configuration down to what the node evaluates.

    Raises:
        InvalidModel: it says no network or no preprocessing.
    """
    wanted = {
        "network": _part(config, "network", "network_def"),
        "preprocessing": _part(config, "preprocessing") or config.get("dataset", {}).get("transform"),
        "inferer": _part(config, "inferer"),
        "postprocessing": _part(config, "postprocessing"),
        "requires": config.get("evaluator", {}).get("_requires_"),
        **_checkpoint(config),
    }
    for key in ("network", "preprocessing"):
        if not wanted[key]:
            raise InvalidModel(f"{file}: {key}", "is missing", f"The node needs the key {key} of a MONAI bundle")
    loaded: list[dict[str, Any]] = []
    tree = {PARTS: _changed({key: value for key, value in wanted.items() if value is not None}, loaded)}
    waiting = [tree[PARTS]]
    while waiting:
        for key in sorted(_referred([waiting.pop(), loaded]) & (set(config) - set(tree) - {"imports"})):
            tree[key] = _changed(config[key], loaded)
            waiting.append(tree[key])
    if any(not loader["keys"] for loader in loaded):
        fix = "Override preprocessing with transforms of dictionaries, such as LoadImaged"
        raise InvalidModel(f"{file}: preprocessing", "loads a file by itself, not the entry of a dictionary", fix)
    tree[PARTS]["loaded"] = loaded
    tree["imports"] = [text for text in _imports(config) if trust_code or may_import(text)]
    return Parts(tree, file)


def _part(config: Mapping[str, Any], *keys: str) -> Any:
    """What the evaluator takes for it, else what stands under the name that the specification gives it."""
    evaluator = config.get("evaluator")
    taken = evaluator.get(keys[0]) if isinstance(evaluator, dict) else None
    return taken or next((f"@{key}" for key in keys if key in config), None)


def _checkpoint(config: Mapping[str, Any]) -> dict[str, Any]:
    """Path, key and strictness of the first CheckpointLoader (of ignite, by ``load_dict``)."""
    for component in _components(config):
        if _CHECKPOINT.fullmatch(str(component.get("_target_"))) and component.get("load_path"):
            into = component.get("load_dict")
            key = next(iter(into), "model") if isinstance(into, dict) else "model"
            strict = str(component.get("strict", True)).lower() != "false"
            return {"weights": component["load_path"], "weights_key": key, "strict": strict}
    return {}


def _referred(value: Any) -> set[str]:
    """The top-level keys that texts below ``value`` refer to."""
    return {reference.split("::")[0] for text in _texts(value) for reference in references(text)}


def _imports(config: Mapping[str, Any]) -> list[str]:
    found = config.get("imports", config.get("import")) or []
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else [str(found)]


def _changed(value: Any, loaded: list[dict[str, Any]]) -> Any:
    """A copy without what loads and saves files, where labels are put back unmixed, and which says the device once.

    ``loaded`` collects what each loader was told: its keys, and whether it puts channels first.
    """
    if isinstance(value, dict):
        target = str(value.get("_target_"))
        if _LOADERS.fullmatch(target):
            loaded.append({"keys": value.get("keys", []), "channel_first": value.get("ensure_channel_first", False)})
        if any(pattern.fullmatch(target) for pattern in (_LOADERS, _WRITERS, _TO_WORLD)):
            return dict(_NOTHING)
        return {key: _changed(below, loaded) for key, below in in_todays_words(value).items()}
    if isinstance(value, list):
        copied = [_changed(below, loaded) for below in value]
        _invert_labels_by_nearest(copied)
        return copied
    if isinstance(value, str) and value.startswith("$"):
        return "@device" if _A_GPU.fullmatch(value) else _THEIR_GPU.sub("@device", value)
    return value


def _invert_labels_by_nearest(transforms: list[Any]) -> None:
    """Between 0 and 2 lies no 1: what was made discrete is not interpolated, whatever ``nearest_interp`` says."""
    discrete = False
    for transform in transforms:
        name = str(transform.get("_target_")).rsplit(".", 1)[-1] if isinstance(transform, dict) else ""
        discrete = discrete or name.startswith("AsDiscrete")
        if discrete and name.startswith("Invert"):
            transform["nearest_interp"] = True


def _components(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and "_target_" in value:
        yield value
    if isinstance(value, (dict, list)):
        for below in value.values() if isinstance(value, dict) else value:
            yield from _components(below)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for below in value.values() if isinstance(value, dict) else value:
            yield from _texts(below)


def _override(config: dict[str, Any], key: str, value: Any) -> None:
    place: Any = config
    *above, last = key.replace("#", "::").split("::")
    try:
        for name in above:
            place = place[int(name) if isinstance(place, list) else name]
        place[int(last) if isinstance(place, list) else last] = value
    except (KeyError, IndexError, ValueError, TypeError):
        raise InvalidModel(
            f"ainode.yaml: overrides.{key}", "names no place in the configuration", "Write an existing key"
        ) from None


class _Macros:
    """Puts the content of ``%key`` and ``%file#key`` in its place, and makes ``@##key`` absolute, as MONAI does."""

    def __init__(self, bundle: Path, config: dict[str, Any], file: str) -> None:
        self._bundle = bundle
        self._config = config
        self._file = file

    def resolve(self) -> dict[str, Any]:
        self._resolve(self._config, ())
        return self._config

    def _resolve(self, value: Any, place: tuple[str, ...]) -> Any:
        if isinstance(value, (dict, list)):
            for key, below in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
                # The metadata is prose: a # in it is no separator.
                if (*place, key) != ("_meta_",):
                    value[key] = self._resolve(below, (*place, str(key)))
        elif isinstance(value, str):
            value = self._absolute(value, place)
            if value.startswith("%"):
                return self._macro(value, place)
        return value

    def _absolute(self, text: str, place: tuple[str, ...]) -> str:
        if "@" not in text and not text.startswith(("%", "$")):
            return text
        text = text.replace("#", "::")
        for prefix in sorted(set(_RELATIVE.findall(text)), key=len, reverse=True):
            up = prefix.count("::")
            if up > len(place):
                raise self._wrong(place, f"{text!r} leads out of the configuration")
            above = place[:-up]
            text = text.replace(prefix, prefix[0] + "".join(f"{name}::" for name in above))
        return text

    def _macro(self, text: str, place: tuple[str, ...]) -> Any:
        match = _SUFFIX.fullmatch(text[1:])
        file, key = match.groups() if match else (None, text[1:])
        found: Any = _read(self._bundle, Path(file)) if file else self._config
        try:
            for name in key.split("::") if key else ():
                found = found[int(name) if isinstance(found, list) else name]
        except (KeyError, IndexError, ValueError, TypeError):
            raise self._wrong(place, f"the macro {text!r} leads nowhere") from None
        return copy.deepcopy(found)

    def _wrong(self, place: tuple[str, ...], problem: str) -> InvalidModel:
        return InvalidModel(f"{self._file}: {'::'.join(place)}", problem, "Mend the bundle, or override the key")


def _read(bundle: Path, file: Path) -> dict[str, Any]:
    """A JSON or YAML file of the bundle, which has to lie within it."""
    name = _name(file)
    path = bundle / file
    if not path.resolve().is_relative_to(bundle.resolve()):
        raise InvalidModel(name, "lies outside of the bundle", "Put the file into the bundle")
    try:
        text = path.read_text("utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise InvalidModel(name, f"cannot be read: {error.strerror}", "A MONAI bundle has this file") from error
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidModel(name, f"is no {path.suffix[1:].upper()}: {error}", "Mend the file") from error
    if not isinstance(content, dict):
        raise InvalidModel(name, "holds no keys", "Write a mapping of keys to values")
    return content


def _name(file: Path) -> str:
    return (Path("bundle") / file).as_posix()
