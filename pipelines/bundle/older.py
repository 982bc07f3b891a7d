"""What bundles for an older MONAI say, in the words of this one, where both mean exactly the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Component = dict[str, Any]


def in_todays_words(component: Component) -> Component:
    """A component (a mapping with ``_target_``) as this MONAI builds it; one that it knows is returned as it is."""
    package, _, name = str(component.get("_target_")).rpartition(".")
    change = _CHANGES.get(name) if package in _PACKAGES else None
    return component if change is None else change(component)


def _add_channel(component: Component) -> Component:
    """AddChannel (until 1.2): one more axis, in front."""
    kept = {key: value for key, value in component.items() if key != "_target_"}
    target = f"EnsureChannelFirst{_suffix(component)}"
    return {"_target_": target, **kept, "channel_dim": "no_channel"}


def _as_channel_first(component: Component) -> Component:
    """AsChannelFirst (until 1.2): the channel axis, by default the last, comes first."""
    kept = {key: value for key, value in component.items() if key != "_target_"}
    target = f"EnsureChannelFirst{_suffix(component)}"
    return {"_target_": target, "channel_dim": -1, **kept}


def _without(*arguments: str) -> Callable[[Component], Component]:
    """For arguments that were without effect before they were removed."""
    return lambda component: {key: value for key, value in component.items() if key not in arguments}


def _suffix(component: Mapping[str, Any]) -> str:
    name = str(component["_target_"])
    return next((suffix for suffix in _DICTIONARY if name.endswith(suffix)), "")


_DICTIONARY = ("d", "D", "Dict")
_PACKAGES = ("", "monai.transforms", "monai.networks.nets")
_CHANGES: Mapping[str, Callable[[Component], Component]] = {
    **{f"AddChannel{suffix}": _add_channel for suffix in ("", *_DICTIONARY)},
    **{f"AsChannelFirst{suffix}": _as_channel_first for suffix in ("", *_DICTIONARY)},
    # An image has carried its metadata with it since 1.0.
    **{
        f"{name}{suffix}": _without("meta_keys", "meta_key_postfix")
        for name in ("EnsureChannelFirst", "Orientation", "Spacing")
        for suffix in _DICTIONARY
    },
    # Since 1.3 the size is looked at in the forward pass; the argument went with 1.5.
    "SwinUNETR": _without("img_size"),
}
