"""The ``ainode`` command. Each command imports what it needs when it runs, so that each starts fast."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from node import __version__
from node.command import AsJson, Context, Limit, core, opened, settings, show
from node.domain.errors import AinodeError, Unavailable
from node.models_cli import models_app, pipelines_app, replay
from node.scaffold import new
from node.stopping import Stop

app = typer.Typer(
    help="A headless AI node for hospital imaging.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)
routes_app = typer.Typer(help="Routes: which studies go to which pipeline.", no_args_is_help=True)
app.add_typer(routes_app, name="routes")
profiles_app = typer.Typer(help="Output profiles: what a peer gets of a result.", no_args_is_help=True)
app.add_typer(profiles_app, name="profiles")
app.add_typer(models_app, name="models")
app.add_typer(pipelines_app, name="pipelines")
pipelines_app.command()(new)
app.command()(replay)


Descriptor = Annotated[int, typer.Option(help="A file descriptor.")]
WithParent = Annotated[int, typer.Option("--with-parent", hidden=True)]
Folder = Annotated[Path, typer.Argument(help="A folder of DICOM files.", exists=True, file_okay=False)]


@app.callback()
def _global(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", envvar="AINODE_CONFIG", help="The settings file [default: ./node.yaml if there]"
        ),
    ] = None,
) -> None:
    from config.load import DEFAULT_FILE

    Context.config = config or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)


def main() -> None:
    """Entry point: an error that the node raises on purpose is one line and exit code 1."""
    try:
        app()
    except AinodeError as error:
        print(f"ainode: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _until_stopped(*, with_parent: int = 0) -> Stop:
    """What SIGTERM and Ctrl-C set; with a parent, its death ends this process too."""
    stop = Stop()
    stop.listen()
    if with_parent:
        from node.workers.supervise import end_with_parent

        end_with_parent(with_parent)
    return stop


@app.command()
def serve(*, with_parent: WithParent = 0) -> None:
    """Run the node: receiver, worker, delivery, admin API."""
    from node.app import serve as run

    stop = _until_stopped(with_parent=with_parent)
    run(core(), stop, ready=lambda: logging.getLogger("node").info("ainode %s is ready", __version__))


@app.command()
def scp(*, with_parent: WithParent = 0) -> None:
    """Run one stage: receive, settle and route."""
    from node.app import receive as run

    stop = _until_stopped(with_parent=with_parent)
    run(core(), stop)


@app.command(hidden=True)
def receiver(*, listener: Descriptor, channel: Descriptor, with_parent: WithParent) -> None:
    """Be one of the receivers of ``serve`` or ``scp``, which start it."""
    from node.front import receive_apart as run

    stop = _until_stopped(with_parent=with_parent)
    run(core(), stop, listener=listener, channel=channel)


@app.command()
def worker(*, with_parent: WithParent = 0) -> None:
    """Run one stage: claim and run jobs."""
    from node.lanes import work as run

    stop = _until_stopped(with_parent=with_parent)
    run(core(), stop)


@app.command()
def deliver(*, with_parent: WithParent = 0) -> None:
    """Run one stage: send results to the peers."""
    from node.app import deliver as run

    stop = _until_stopped(with_parent=with_parent)
    run(core(), stop)


@app.command()
def api(*, with_parent: WithParent = 0) -> None:
    """Run one stage: the admin API and the status page."""
    from node.app import api as run

    stop = _until_stopped(with_parent=with_parent)
    run(core(), stop)


@app.command()
def demo(
    study: Annotated[Path | None, typer.Option(help="A folder with a real study in place of the phantom.")] = None,
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo-out"),
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up until Ctrl-C.")] = False,
) -> None:
    """Show the whole way: a node, a small PACS, a chest CT in, results out."""
    from node.demo.show import show

    raise typer.Exit(show(out, study, keep=keep))


@app.command()
def send(
    folder: Folder,
    to: Annotated[str, typer.Option("--to", help="A peer's name, or AE@host:port.")],
) -> None:
    """Send a folder by C-STORE."""
    from node.console import send_folder

    raise typer.Exit(send_folder(folder, to, settings()))


@app.command()
def echo(to: Annotated[str, typer.Option("--to", help="A peer's name, or AE@host:port.")]) -> None:
    """Ask a peer by C-ECHO whether it is there."""
    from node.console import echo as ask

    ask(to, settings())


@app.command()
def pull(
    source: Annotated[str, typer.Option("--from", help="A peer's name, or AE@host:port.")],
    study: Annotated[str, typer.Option(help="The StudyInstanceUID.")],
    operation: Annotated[
        str | None, typer.Option("--with", help="get or move [default: move when a node runs here, else get]")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Fetch a study from a peer by C-MOVE or C-GET."""
    from node.pull import Operation, pull_with_bar, show_pulled

    shared = core()
    try:
        pulled = pull_with_bar(shared, source, study, _one_of(Operation, operation, "--with"))
    finally:
        shared.close()
    show(pulled, show_pulled, as_json=as_json)
    raise typer.Exit(0 if pulled.here == pulled.held else 1)


@app.command()
def run(
    model: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A pipeline, or a registered version.")],
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Where the result objects are written.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N")] = "auto",
    profile: Annotated[str, typer.Option(help="What is written: an output profile.")] = "full",
    *,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline or a model version on one study from disk; no node has to run."""
    from node.console import profile_of, show_run
    from node.offline import run_on
    from node.versions import open_named

    with opened() as shared:
        chosen = open_named(shared, model)
        wanted = profile_of(profile, shared.settings)
    with redirect_stdout(sys.stderr):  # what a network prints is no part of the answer
        output, _ = run_on(chosen, folder, out, device=device, settings=shared.settings, profile=wanted)
    raise typer.Exit(show_run(output, as_json=as_json))


@app.command()
def status(*, as_json: AsJson = False) -> None:
    """Show how the node stands."""
    from node.console import show_status

    _print(lambda q: q.status(), show_status, as_json=as_json)


@app.command()
def studies(limit: Limit = 20, *, as_json: AsJson = False) -> None:
    """List the latest studies."""
    from node.console import show_studies

    _print(lambda q: q.studies(limit=limit), show_studies, as_json=as_json)


@app.command()
def jobs(
    limit: Limit = 20,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the latest jobs."""
    from node.console import show_jobs
    from node.domain.job import JobState

    chosen = _one_of(JobState, state, "--state")
    _print(lambda q: q.jobs(limit=limit, state=chosen), show_jobs, as_json=as_json)


@app.command()
def deliveries(
    limit: Limit = 20,
    state: Annotated[str | None, typer.Option(help="Only deliveries in this state.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the latest deliveries."""
    from node.console import show_deliveries
    from node.domain.delivery import DeliveryState

    chosen = _one_of(DeliveryState, state, "--state")
    _print(lambda q: q.deliveries(limit=limit, state=chosen), show_deliveries, as_json=as_json)


@app.command()
def prune(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what is kept for long enough, as a running node does by itself."""
    from node.app import is_running
    from node.console import show_due

    with opened() as shared:
        service = shared.prune()
        due = service.due()
        # A node that runs knows what is being sent to it at this moment.
        if not dry_run and (is_running(shared.data_dir) or not service.prune()):
            raise Unavailable("the node that runs here removes this by itself, within ten minutes")
    show(due, lambda found: show_due(found, removed=not dry_run), as_json=as_json)


@routes_app.command("explain")
def explain(folder: Folder, *, as_json: AsJson = False) -> None:
    """Say for every route whether it takes the study in a folder, and why."""
    from node.console import show_routes
    from node.offline import explain as ask

    show(ask(folder, settings()), show_routes, as_json=as_json)


@profiles_app.command("list")
def list_profiles(*, as_json: AsJson = False) -> None:
    """List the profiles, and the peers that have them."""
    from node.console import profiles_of, show_profiles

    show(profiles_of(settings()), show_profiles, as_json=as_json)


@profiles_app.command("show")
def show_profile(name: str, *, as_json: AsJson = False) -> None:
    """Show every key of a profile."""
    from node.console import profile_of
    from node.console import show_profile as in_words

    show(profile_of(name, settings()), in_words, as_json=as_json)


@app.command("check-config")
def check_config() -> None:
    """Check the settings and exit: 0 when they are valid."""
    from config.settings import routes
    from node.files.layout import MODELS
    from pipelines.registry import model_version

    loaded = settings()
    for route in routes(loaded):
        if not (loaded.node.data_dir / MODELS / route.pipeline).is_dir():
            model_version(route.pipeline)
    where = Context.config or "the defaults"
    typer.echo(f"{where}: valid, {len(loaded.peers)} peers, {len(loaded.routes)} routes")


@app.command()
def token(*, rotate: Annotated[bool, typer.Option("--rotate", help="Make a new one first.")] = False) -> None:
    """Print the API token."""
    shared = core()
    if rotate:
        shared.rotate_token()
        typer.echo("restart the node so that it asks for the new token", err=True)
    typer.echo(shared.token)
    shared.close()


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _one_of(kind: Any, value: str | None, option: str) -> Any:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r}: one of {', '.join(s.value for s in kind)}", param_hint=option) from None


def _print(ask: Callable[[Any], Any], in_words: Callable[[Any], None], *, as_json: bool) -> None:
    with opened() as shared:
        show(ask(shared.queries()), in_words, as_json=as_json)
