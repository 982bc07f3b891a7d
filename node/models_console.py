"""What the command line prints of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from node.console import err, out
from node.domain.audit import AuditEntry
from node.domain.model import KnownVersion, ModelVersion
from node.domain.rollout import Rollout
from node.domain.trial import Trial
from node.services.models import ModelStatus

if TYPE_CHECKING:  # it brings FastAPI, which takes a second
    from admin_api.deps import InstalledPipeline

_SHOWN_DIFFERENCES = 3


def show_version(known: KnownVersion) -> None:
    """One version."""
    model = known.model
    out.print(f"[bold]{escape(model.name)}@{escape(model.version)}[/] {known.state.value}, {known.kind}")
    out.print(f"  sha256  {model.digest}")
    out.print(f"  source  {escape(known.source)}{', its code is trusted' if known.trusted else ''}")
    if known.reason:
        out.print(f"  reason  {escape(known.reason)}")


def show_models(models: list[ModelStatus]) -> None:
    """Every version and its role."""
    table = Table("model", "version", "digest", "state", "role", "kind", "reason", box=None)
    for status in models:
        for known in status.versions:
            model = known.model
            role = _role(status.rollout, model)
            table.add_row(
                model.name, model.version, model.digest[:16], known.state.value, role, known.kind, known.reason or ""
            )
    out.print(table)
    for status in models:
        if status.rollout is not None and status.rollout.problem:
            err.print(f"[red]{escape(status.rollout.problem)}[/]")


def _role(rollout: Rollout | None, model: ModelVersion) -> str:
    role = rollout.role_of(model) if rollout is not None else None
    if rollout is None or role is None:
        return ""
    canary = rollout.canary
    share = f" {canary.share / 100:g} %" if canary is not None and canary.model == model else ""
    return role.value + share


def show_rollout(rollout: Rollout) -> None:
    """Who runs."""
    out.print(f"[bold]{escape(rollout.name)}[/]")
    out.print(f"  champion  {escape(rollout.champion.label)}")
    if rollout.canary is not None:
        out.print(f"  canary    {escape(rollout.canary.model.label)}, {rollout.canary.share / 100:g} % of the studies")
    for shadow in rollout.shadows:
        out.print(f"  shadow    {escape(shadow.label)}")
    for before in rollout.previous:
        out.print(f"  before    {escape(before.label)}", style="dim")
    if rollout.problem:
        out.print(f"  [red]{escape(rollout.problem)}[/]")


def show_status(status: ModelStatus) -> None:
    """One model name."""
    if status.rollout is not None:
        show_rollout(status.rollout)
    for known in status.versions:
        show_version(known)
    figures = status.figures
    if figures is not None:
        out.print(f"canary: {figures.jobs} jobs, {figures.failed} failed, {figures.compared} compared")
        if figures.seconds is not None and figures.champion_seconds is not None:
            out.print(f"  median {figures.seconds:.1f} s, the champion {figures.champion_seconds:.1f} s")
        if figures.disagreement is not None:
            out.print(f"  disagreement {figures.disagreement:.3f}")
    for compared in status.comparisons:
        said = f"{compared.role.value} {compared.model.label} on {compared.study_uid}: {compared.disagreement:.3f}"
        out.print(escape(said))
        for each in compared.differences[:_SHOWN_DIFFERENCES]:
            what = f"{each.region}.{each.key}" if each.region else each.key
            out.print(f"  {escape(what)}: {each.other}, the champion {each.champion}", style="dim")
    show_audit(list(status.audit))


def show_trial(trial: Trial) -> None:
    """How a trial stands or ended."""
    out.print(
        f"[bold]{escape(trial.model.label)}[/] {trial.state.value}" + (f" on {trial.device}" if trial.device else "")
    )
    for name, seconds in (trial.stages or {}).items():
        out.print(f"  {name:12}{seconds:.1f} s")
    if trial.reason:
        err.print(f"[red]{escape(trial.reason)}[/]")


def show_audit(entries: list[AuditEntry]) -> None:
    """Who changed what, the latest first."""
    table = Table("when", "who", "change", "version", "why", box=None)
    for e in entries:
        table.add_row(f"{e.at:%Y-%m-%d %H:%M:%S}", e.who, e.change.value, e.model.label, escape(e.why))
    out.print(table)


def show_pipelines(pipelines: list[InstalledPipeline]) -> None:
    """The installed pipelines."""
    table = Table("pipeline", "version", "digest", "title", box=None)
    for p in pipelines:
        if p.model is None:
            table.add_row(p.name, "", "", f"[red]{escape(p.unavailable or '')}[/]")
        else:
            table.add_row(p.name, p.model.version, p.model.digest[:16], escape(p.model.title))
    out.print(table)


def show_pipeline(found: dict[str, Any]) -> None:
    """One installed pipeline."""
    model: ModelVersion = found["model"]
    out.print(f"[bold]{escape(model.name)}@{escape(model.version)}[/] {escape(model.title)}")
    out.print(f"  sha256       {model.digest}")
    out.print(f"  entry point  {found['entry_point']}")
    out.print(f"  routes       {', '.join(found['routes']) or 'none lead to it'}")
