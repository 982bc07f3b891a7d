"""Parts of ``bench/stream.py``."""
