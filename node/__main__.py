"""``python -m node`` is ``ainode``."""

from node.cli import main

main()
