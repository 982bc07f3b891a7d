"""What this model version is. Imports no torch: the dispatcher asks for it too."""

from __future__ import annotations

from functools import cache

import pipelines.lung_density_ct
import pipelines.read
from node.domain.model import ModelVersion
from pipelines.digest import digest_of

NAME = "lung_density_ct"
VERSION = "1.0.0"
TITLE = "CT lung densitometry"


@cache
def model_version() -> ModelVersion:
    """The digest is over the code that measures and the code that reads: there are no weights."""
    return ModelVersion(NAME, VERSION, digest_of(pipelines.lung_density_ct, pipelines.read), TITLE)
