"""What every command of ``ainode`` shares: the global options, the settings, and how something found is printed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from config.settings import Settings
    from node.core import Core

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many, the latest first.")]


class Context:
    """What the global options say."""

    config: Path | None = None


def settings() -> Settings:
    """The settings of this run; logging is set up by them."""
    from config.load import load
    from node.observe.logs import configure

    loaded = load(Context.config, os.environ)
    configure(loaded.log.level, loaded.log.format)
    return loaded


def core() -> Core:
    """The shared objects of this run."""
    from node.core import Core

    return Core(settings(), Context.config)


@contextmanager
def opened() -> Iterator[Core]:
    """The shared objects, closed at the end."""
    shared = core()
    try:
        yield shared
    finally:
        shared.close()


def show(found: Any, in_words: Callable[[Any], None], *, as_json: bool) -> None:
    """Print what was found, as JSON or in words."""
    from node.services.queries import as_json as plain

    if as_json:
        typer.echo(json.dumps(plain(found), indent=2))
    else:
        in_words(found)
