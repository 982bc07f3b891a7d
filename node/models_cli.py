"""``ainode models``, ``ainode pipelines`` and ``ainode replay``. Each imports what it needs when it runs."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.command import AsJson, Limit, opened, settings, show

if TYPE_CHECKING:
    from node.core import Core
    from node.domain.trial import Wish

models_app = typer.Typer(help="Model versions: add, try, activate, take back.", no_args_is_help=True)
pipelines_app = typer.Typer(help="Pipelines: those that are installed, and a new one.", no_args_is_help=True)

Version = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="A version, or NAME@DIGEST.")]
Why = Annotated[str, typer.Option("--why", prompt="Why (for the audit)", help="The reason; kept in the audit.")]
WithoutGolden = Annotated[
    bool, typer.Option("--without-golden", help="Let a version without a golden case pass; the audit shows it.")
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the version was tried.")]


def _who() -> str:
    return getpass.getuser()


@models_app.command()
def add(
    source: Annotated[
        str, typer.Argument(help="A bundle: directory, zip file, https:// address of one, hf:// or models:/.")
    ],
    why: Why,
    name: Annotated[str | None, typer.Option(help="[default: as the directory or file is called]")] = None,
    version: Annotated[str | None, typer.Option(help="[default: that of configs/metadata.json]")] = None,
    title: Annotated[str | None, typer.Option(help="[default: the name in configs/metadata.json]")] = None,
    side_file: Annotated[Path | None, typer.Option(help="The site's ainode.yaml for it.")] = None,
    golden: Annotated[Path | None, typer.Option(help="A folder with input/ and expected.json.")] = None,
    sha256: Annotated[
        str | None, typer.Option(help="Digest of the zip file, or of all files; needed with an address.")
    ] = None,
    *,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Let Python code in the bundle run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Register a version: its files are copied and digested. Nothing runs it yet."""
    from node.models_console import show_version
    from node.services.register import Source

    wanted = Source(
        address=source,
        name=name,
        version=version,
        title=title,
        side_file=side_file,
        golden=golden,
        sha256=sha256,
        trusted=trust_code,
    )
    with opened() as core:
        show(core.register().add(wanted, who=_who(), why=why), show_version, as_json=as_json)


@models_app.command("list")
def list_models(*, as_json: AsJson = False) -> None:
    """List every version and its role."""
    from node.models_console import show_models

    with opened() as core:
        core.rollouts().refresh()
        show(core.models().all(), show_models, as_json=as_json)


@models_app.command("show")
def show_model(name: str, *, as_json: AsJson = False) -> None:
    """Show one model: versions, roles, how a canary or shadow compares, what was done last."""
    from node.models_console import show_status

    with opened() as core:
        core.rollouts().refresh()
        show(core.models().show(name), show_status, as_json=as_json)


@models_app.command()
def verify(version: Version, *, as_json: AsJson = False) -> None:
    """Hold the files of a version against their digests."""
    from node.models_console import show_version

    with opened() as core:
        show(core.models().verify(version), show_version, as_json=as_json)


@models_app.command()
def activate(
    version: Version, why: Why, *, without_golden: WithoutGolden = False, wait: Wait = True, as_json: AsJson = False
) -> None:
    """Make a version the champion, once it has passed its gate on this device."""
    from node.domain.job import Role
    from node.domain.trial import Wish

    with opened() as core:
        _try(core, version, Wish(Role.CHAMPION, without_golden=without_golden), why, wait=wait, as_json=as_json)


@models_app.command()
def canary(
    version: Version,
    percent: Annotated[str, typer.Option(help="Share of the studies, 0.01 to 100.")],
    why: Why,
    after: Annotated[int, typer.Option(help="Jobs before a bound counts.")] = 10,
    errors: Annotated[float, typer.Option(help="Most failed jobs, as a share.")] = 0.05,
    slowdown: Annotated[float, typer.Option(help="Most time, in times that of the champion.")] = 2.0,
    disagreement: Annotated[float, typer.Option(help="Most disagreement with the champion, 0 to 1.")] = 0.2,
    *,
    without_golden: WithoutGolden = False,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Give a version a share of the studies, and stop it by itself where it passes a bound."""
    from node.domain.job import Role
    from node.domain.rollout import Bounds, share_of
    from node.domain.trial import Wish

    bounds = Bounds(after, errors, slowdown, disagreement)
    wish = Wish(Role.CANARY, share_of(percent), bounds, without_golden)
    with opened() as core:
        _try(core, version, wish, why, wait=wait, as_json=as_json)


@models_app.command()
def shadow(
    version: Version, why: Why, *, without_golden: WithoutGolden = False, wait: Wait = True, as_json: AsJson = False
) -> None:
    """Run a version beside the champion: stored and compared, never sent."""
    from node.domain.job import Role
    from node.domain.trial import Wish

    with opened() as core:
        _try(core, version, Wish(Role.SHADOW, without_golden=without_golden), why, wait=wait, as_json=as_json)


def _try(core: Core, reference: str, wish: Wish, why: str, *, wait: bool, as_json: bool) -> None:
    from node.domain.trial import TrialState
    from node.models_console import show_trial
    from node.versions import tried

    core.rollouts().refresh()
    trial = core.rollouts().request(core.models().find(reference).model, wish, who=_who(), why=why)
    if wait:
        trial = tried(core, trial)
    show(trial, show_trial, as_json=as_json)
    raise typer.Exit(1 if trial.state is TrialState.FAILED else 0)


@models_app.command()
def rollback(
    model: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="The version to take back, or the champion.")],
    why: Why,
    *,
    as_json: AsJson = False,
) -> None:
    """Take a champion, canary or shadow back at once; its jobs go to the version that takes over."""
    from node.models_console import show_rollout

    with opened() as core:
        taken = core.models().find(model).model if "@" in model else None
        after = core.rollouts().rollback(model.partition("@")[0], model=taken, who=_who(), why=why)
        show(after, show_rollout, as_json=as_json)


@models_app.command()
def retire(version: Version, why: Why) -> None:
    """Put a version out of use; its files stay."""
    with opened() as core:
        known = core.models().find(version)
        core.rollouts().retire(known.model, who=_who(), why=why)
        typer.echo(f"{known.model.label} is retired")


@models_app.command()
def sign(
    version: Version, key: Annotated[Path, typer.Option(help="Ed25519 private key, PEM.", exists=True)], why: Why
) -> None:
    """Sign a version, so that nodes that know the key run its code."""
    with opened() as core:
        signer = core.models().sign(version, key.read_bytes(), who=_who(), why=why)
        typer.echo(f"signed by key {signer}")


@models_app.command()
def audit(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    limit: Limit = 20,
    *,
    as_json: AsJson = False,
) -> None:
    """Show who changed what about the models, when and why."""
    from node.models_console import show_audit

    with opened() as core:
        show(core.models().audit(limit=limit, name=name), show_audit, as_json=as_json)


def replay(
    study: Annotated[str, typer.Argument(help="StudyInstanceUID of a study that is here.")],
    model: Annotated[str, typer.Option(metavar="NAME@VERSION", help="The version to run on it.")],
    why: Why,
    *,
    send: Annotated[bool, typer.Option("--send", help="Also send the results where the first ones went.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a stored study again with another version; the results are kept, and not sent unless asked."""
    from node.console import show_jobs

    with opened() as core:
        core.rollouts().refresh()
        known = core.models().find(model)
        job = core.replay().replay(study, known, send=send, who=_who(), why=why)
        show(job, lambda queued: show_jobs([queued]), as_json=as_json)


@pipelines_app.command("list")
def list_pipelines(*, as_json: AsJson = False) -> None:
    """List the installed pipelines, or say why one cannot be had."""
    from node.models_console import show_pipelines
    from node.web import pipelines

    show(pipelines(), show_pipelines, as_json=as_json)


@pipelines_app.command("show")
def show_pipeline(name: str, *, as_json: AsJson = False) -> None:
    """Show one installed pipeline, and the routes that lead to it."""
    from config.settings import routes
    from node.models_console import show_pipeline as in_words
    from pipelines.registry import available, create

    pipeline = create(name)
    led = [route.name for route in routes(settings()) if route.pipeline == name]
    found = {"model": pipeline.model, "entry_point": available()[name], "routes": led}
    show(found, in_words, as_json=as_json)
