"""The reading part of ``bench/pipeline.py``: a series of files to values in an array, by ainode and by others."""
