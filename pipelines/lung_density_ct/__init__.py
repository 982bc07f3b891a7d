"""CT lung densitometry: volumes, mean density, LAA-950 and Perc15; needs no weights."""
