"""Findings in, DICOM result objects out: a segmentation, an overlay series and a structured report.

The layer below the worker: no network, no database, no torch.
"""
