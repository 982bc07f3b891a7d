"""A guide that is not true does not pass."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.guide import follow

TRUE = """# A guide

```text file=folder/name
world
```

```sh run
echo "hello   $(cat folder/name)"
! false
```

```text said
hello world
```

```sh
exit 1
```
"""


def _follow(written: str, folder: Path) -> None:
    guide = folder / "guide.md"
    guide.write_text(written)
    follow(guide, folder, os.environ)


def test_what_is_written_is_done_in_order(tmp_path: Path) -> None:
    _follow(TRUE, tmp_path)
    assert (tmp_path / "folder" / "name").read_text() == "world\n"


@pytest.mark.parametrize(
    ("true", "untrue", "told"),
    [
        ("hello world", "hello moon", r"guide.md, line 12: 'hello moon' was not said, but:\nhello   world"),
        ("! false", "false\ntrue", "guide.md, line 7: exit status 1"),
        ("sh run", "sh walk", "guide.md, line 7: 'walk' is none of run, said, file=PATH"),
    ],
)
def test_what_is_not_so_is_told_with_its_line(true: str, untrue: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=told):
        _follow(TRUE.replace(true, untrue), tmp_path)
