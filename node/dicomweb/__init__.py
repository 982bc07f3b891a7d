"""DICOMweb as its client (PS3.18)."""
