"""The parts of ``bench/ingest.py``: what is sent, who receives it, how it is measured, and how it is told."""
