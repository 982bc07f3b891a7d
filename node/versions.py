"""Model versions from the command line: opened by name, and tried here where no node runs that would try them."""

from __future__ import annotations

import time

from node.app import is_running
from node.core import Core
from node.domain.trial import Trial, TrialState
from node.lanes import gate, shared_device
from node.stopping import Stop
from node.workers.local import LocalEngine
from pipelines.contract import Pipeline
from pipelines.registry import available, create, open_version

_LOOK_SECONDS = 0.2
_ENDED = (TrialState.PASSED, TrialState.FAILED)


def open_named(core: Core, reference: str) -> Pipeline:
    """A version by ``NAME@VERSION``; by a name alone the installed pipeline, else the champion.

    Raises:
        NotFound, Unavailable: there is none, or it cannot be imported.
        InvalidModel: its files are not what was registered.
    """
    if reference in available():
        return create(reference)
    models = core.models()
    known = models.find(reference) if "@" in reference else models.champion(reference)
    located = core.locate()(known.model)
    return open_version(known.model, located.directory, trust_code=located.trust_code)


def tried(core: Core, trial: Trial) -> Trial:
    """Wait until a trial has ended. The worker of a running node tries it; where none runs, this process does."""
    models = core.models()
    if is_running(core.data_dir):
        while (ended := models.trial(trial.id)).state not in _ENDED:
            time.sleep(_LOOK_SECONDS)
        return ended
    log, first = core.settings.log, 0
    engine = LocalEngine(shared_device(core, first), log_level=log.level, log_format=log.format)
    here = gate(core, engine, Stop(), core.settings.work.device[first])
    core.recover().leases()
    try:
        while (ended := models.trial(trial.id)).state not in _ENDED:
            if not here.work():
                time.sleep(_LOOK_SECONDS)
    finally:
        engine.close()
    return ended
