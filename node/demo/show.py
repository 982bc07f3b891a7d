"""What the demo does and prints."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom import dcmread
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dicom_sr.render import html, overlay_png, text
from node.console import findings_table, send_collected
from node.demo.stage import SENDER, Stage, empty, staged
from node.dicom.send_dir import collect
from pipelines.phantom import SeriesOptions, write_series
from pipelines.phantom_anatomy import PhantomSpec, PhantomTruth, make_phantom

out = Console(highlight=False, soft_wrap=True)

_SR = "1.2.840.10008.5.1.4.1.1.88.34"
_SEG = "1.2.840.10008.5.1.4.1.1.66.4"
_SC = "1.2.840.10008.5.1.4.1.1.7"
_WAIT_SECONDS = 600
_PICTURES = 5

Truth = dict[tuple[str, str], float]


def show(folder: Path, study: Path | None, *, keep: bool) -> int:
    """Run the demo; returns the exit code: 0 when the results lie in the PACS (or a real study was refused)."""
    folder = empty(folder)
    truth: Truth | None = None
    if study is None:
        out.print("[bold]1. A chest CT phantom[/] with known lung volumes and a known emphysema fraction")
        phantom = make_phantom(PhantomSpec(seed=datetime.now().isoformat()))
        write_series(phantom, folder / "ct", SeriesOptions())
        truth = _truth(phantom.truth)
        study = folder / "ct"
    with staged(folder) as stage:
        out.print(
            f"[bold]2. The node[/] {stage.node.ae_title} listens on port {stage.node.port}; status page {stage.url}/"
        )
        collected = collect(study)
        if failed := send_collected(collected, stage.node, SENDER):
            out.print(f"[red]{len(failed)} objects were not accepted[/]: {failed[0].status:04X} {failed[0].comment}")
            return 1
        uid = str(dcmread(collected.files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
        found = _await(stage, uid)
        code = _report(stage, found, folder, truth)
        if keep:
            _stay(stage, folder)
        return code


def _truth(truth: PhantomTruth) -> Truth:
    known: Truth = {}
    for region, lung in (("lungs", truth.total), ("lung_left", truth.left), ("lung_right", truth.right)):
        known[region, "volume_ml"] = lung.volume_ml
        known[region, "laa950_percent"] = lung.laa950_percent
        known[region, "mean_hu"] = lung.mean_hu
        known[region, "perc15_hu"] = lung.perc15_hu
    return known


def _await(stage: Stage, uid: str) -> Any:
    """The study, once nothing is left to do for it."""
    deadline = time.monotonic() + _WAIT_SECONDS
    with out.status("waiting for the study to settle") as status:
        while True:
            study = stage.get(f"/api/v1/studies/{uid}")
            jobs, deliveries = study["jobs"], study["deliveries"]
            open_ = [d for d in deliveries if d["state"] in ("pending", "sending")]
            busy = [j for j in jobs if j["state"] in ("queued", "running")]
            if study["study"]["state"] == "routed" and not open_ and not busy:
                return study
            if time.monotonic() > deadline:
                return study
            if deliveries:
                status.update(f"delivering: {len(deliveries) - len(open_)} of {len(deliveries)}")
            elif busy:
                status.update(f"job {busy[0]['state']}")
            time.sleep(0.3)


def _report(stage: Stage, found: Any, folder: Path, truth: Truth | None) -> int:
    jobs = found["jobs"]
    if not jobs:
        out.print("[yellow]No route took the study:[/]")
        for decision in found["decisions"]:
            out.print(f"  {decision['route']}: {decision['reason']}")
        return 1
    job = jobs[-1]
    if job["state"] == "refused":
        out.print(f"[yellow]Not for this model:[/] {job['reason']}")
        _timeline(found)
        return 0
    if job["state"] != "succeeded":
        out.print(f"[red]The job is {job['state']}:[/] {job['reason']}; the node's log is {stage.log}")
        return 1
    out.print(f"[bold]3. What came back[/] from {job['model']['name']}@{job['model']['version']}")
    out.print(findings_table(job["findings"], truth))
    for note in job["findings"]["notes"]:
        out.print(f"  {escape(note)}")
    _timeline(found)
    _files(folder)
    undelivered = [d for d in found["deliveries"] if d["state"] not in ("delivered", "committed")]
    out.print(f"Status page: {stage.url}/ (token: {stage.token})")
    if undelivered:
        out.print(f"[red]{len(undelivered)} results were not delivered[/]: {undelivered[0]['reason']}")
        return 1
    return 0


def _timeline(found: Any) -> None:
    """The steps of the study and its job; the deliveries as one line each for first and last."""
    out.print("[bold]4. The study's timeline[/]")
    table = Table("time", "since", "what", "step", "to", box=None, pad_edge=False)
    events = [e for e in found["timeline"] if e["subject"] != "delivery"]
    deliveries = [e for e in found["timeline"] if e["subject"] == "delivery" and e["to_state"] == "delivered"]
    start = datetime.fromisoformat(events[0]["at"])
    shown = [(e, e["step"]) for e in events]
    if deliveries:
        shown.append((deliveries[-1], f"{len(deliveries)} instances"))
    for event, step in shown:
        at = datetime.fromisoformat(event["at"])
        since = f"+{(at - start).total_seconds():.1f} s"
        table.add_row(at.strftime("%H:%M:%S"), since, event["subject"], step, event["to_state"] or "")
    out.print(table)


def _files(folder: Path) -> None:
    """Write what a person can open beside the objects, and say where all lies."""
    out.print("[bold]5. The results[/] as the PACS has them")
    pictures = []
    for path in sorted((folder / "pacs").glob("*.dcm")):
        dataset = dcmread(path)
        if dataset.SOPClassUID == _SR:
            (folder / "report.txt").write_text(text(dataset))
            (folder / "report.html").write_text(html(dataset))
            out.print(f"  SR       {path}\n           {folder / 'report.txt'}\n           {folder / 'report.html'}")
        elif dataset.SOPClassUID == _SEG:
            out.print(f"  SEG      {path}")
        elif dataset.SOPClassUID == _SC:
            pictures.append(dataset)
    pictures.sort(key=lambda d: int(d.InstanceNumber))
    for number in range(_PICTURES if pictures else 0):
        chosen = pictures[(2 * number + 1) * len(pictures) // (2 * _PICTURES)]
        png = folder / f"overlay-{int(chosen.InstanceNumber):04d}.png"
        png.write_bytes(overlay_png(chosen))
        out.print(f"  overlay  {png}")


def _stay(stage: Stage, folder: Path) -> None:
    out.print(f"The node stays up; settings {folder / 'node.yaml'}, log {stage.log}. Ctrl-C ends it.")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        return
