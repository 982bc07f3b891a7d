"""A guide in Markdown as a script: its fenced blocks, by what the word behind the language asks for.

``run`` runs the block (sh or python); ``file=PATH`` writes it there; ``said`` holds its lines against what the last
block that was run has printed, blanks aside. Blocks without such a word are for reading only.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_FENCED = re.compile(r"^```(\w+) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LONGEST_SECONDS = 250


@dataclass(frozen=True)
class Block:
    """One fenced block and the line that it begins at."""

    language: str
    wanted: str
    content: str
    line: int


def blocks(guide: Path) -> Iterator[Block]:
    """The marked blocks, in order."""
    written = guide.read_text("utf-8")
    for found in _FENCED.finditer(written):
        yield Block(found[1], found[2], found[3], written[: found.start()].count("\n") + 1)


def follow(guide: Path, folder: Path, environ: Mapping[str, str]) -> None:
    """Do what the guide says, in ``folder``, until something is not as it says."""
    said = ""
    for block in blocks(guide):
        where = f"{guide.name}, line {block.line}"
        if block.wanted == "run":
            said = _run(block, folder, environ, where)
        elif block.wanted == "said":
            for line in filter(str.strip, block.content.splitlines()):
                assert _plain(line) in _plain(said), f"{where}: {line!r} was not said, but:\n{said}"
        else:
            kind, _, path = block.wanted.partition("=")
            assert kind == "file", f"{where}: {block.wanted!r} is none of run, said, file=PATH"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(block.content, "utf-8")
    return said


def _run(block: Block, folder: Path, environ: Mapping[str, str], where: str) -> str:
    command = {"sh": ["sh", "-eu"], "python": ["python", "-"]}[block.language]
    done = subprocess.run(
        ["env", *command],  # env looks the program up in the PATH that it is given
        input=block.content,
        cwd=folder,
        env=dict(environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LONGEST_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{where}: exit status {done.returncode}\n{block.content}\n{done.stdout}"
    return done.stdout


def _plain(text: str) -> str:
    return " ".join(text.split())
