// The status page: asks for the token once a tab, then reads the API every three seconds.

import { el, table } from "./dom.js";

const REFRESH_MS = 3000;
const TOKEN = "ainode-token";
const TONES = {
  good: ["routed", "succeeded", "delivered", "committed"],
  busy: ["receiving", "settled", "queued", "running", "pending", "sending"],
  bad: ["dead"],
};

const $ = (id) => document.getElementById(id);
const shown = new Map(); // what each part of the page shows, so that only what changed is drawn again
let openStudy = null;
let clockLead = 0; // the node's clock minus the browser's, in ms
let timer = null;

class Refused extends Error {}

async function api(path, method = "GET") {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(TOKEN)}` };
  const answer = await fetch(`api/v1/${path}`, { method, headers });
  const body = await answer.json();
  if (answer.status === 401) throw new Refused("The token is wrong.");
  if (!answer.ok) throw new Error(body.error.problem);
  return body;
}

// ---- words -------------------------------------------------------------------------------------------------------

function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(count, 1)) / 3));
  const value = count / 1000 ** step;
  return `${value.toFixed(value < 10 && step ? 1 : 0)} ${units[step]}`;
}

const shortUid = (uid) => (uid.length > 14 ? `…${uid.slice(-12)}` : uid);
const uidText = (uid) => (uid ? el("span", { className: "uid", title: uid }, shortUid(uid)) : "–");
/** A text whose long UIDs are shortened; each keeps the whole as its title. */
const withUids = (text) => el("span", {}, ...text.split(/(\d+(?:\.\d+){5,})/).map((part, n) => (n % 2 ? uidText(part) : part)));
const tone = (state) => Object.keys(TONES).find((t) => TONES[t].includes(state)) ?? "still";
const stateText = (state) => el("span", { className: `state ${tone(state)}` }, state);
const secondsBetween = (from, to) => (Date.parse(to) - Date.parse(from)) / 1000;
const ageOf = (at) => span((Date.now() + clockLead - Date.parse(at)) / 1000);
const modelText = (model) => el("span", { title: `${model.title} ${model.digest}` }, `${model.name}@${model.version}`);

const versionText = (model) => el("span", { title: `${model.title} ${model.digest}` }, model.version);
const canaryText = (canary) => (canary ? el("span", {}, versionText(canary.model), `, ${canary.share / 100} %`) : "–");

function age(at) {
  return el("time", { dateTime: at, title: new Date(at).toLocaleString(), dataset: { age: at } }, ageOf(at));
}

function studyLink(uid) {
  const open = () => { openStudy = uid; shown.delete("study-body"); refresh(); };
  return el("button", { className: "link uid", title: uid, onclick: open }, shortUid(uid));
}

function duration(job) {
  if (!job.started_at) return "–";
  return job.state === "running" ? age(job.started_at) : span(secondsBetween(job.started_at, job.finished_at));
}

// ---- parts -------------------------------------------------------------------------------------------------------

/** Draw a part anew when what it shows has changed, and say so in a sentence where there is nothing. */
function draw(id, data, build) {
  const text = JSON.stringify(data);
  if (shown.get(id) === text) return;
  shown.set(id, text);
  $(id).replaceChildren(...[build(data)].flat());
}

function rows(id, data, columns, none) {
  draw(id, data, () => (data.length ? table(columns, data) : el("p", { className: "none" }, none)));
}

function tile(name, count, parts) {
  const said = Object.entries(parts).filter(([, n]) => n > 0).map(([state, n]) => `${n} ${state}`).join(", ");
  return el("div", { className: "tile" }, el("small", {}, name), el("b", {}, String(count)),
    el("span", { className: "parts" }, said || "\u00a0"));
}

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

function drawNode(status) {
  clockLead = Date.parse(status.at) - Date.now();
  document.title = `${status.ae_title} – ainode`;
  $("ae-title").textContent = status.ae_title;
  const ready = status.ready ? el("span", { className: "state good" }, "ready")
    : el("span", { className: "state bad" }, `not ready: ${status.problems.join("; ")}`);
  $("node-line").replaceChildren(ready, ` · version ${status.version} · up ${span(status.uptime_seconds)}`,
    ` · ${bytes(status.free_bytes)} free`);
  const { studies, jobs, deliveries, instances, asides } = status;
  draw("counts", { studies, jobs, deliveries, instances, asides }, () => [
    tile("Studies", sum(studies), studies),
    tile("Jobs", sum(jobs), jobs),
    tile("Deliveries", sum(deliveries), deliveries),
    tile("Instances kept", instances, {}),
    tile("Objects aside", asides, {}),
  ]);
}

/** What the peer answered with success and is still to be looked for, and for how long. */
const toVerify = ({ verify, unverified, oldest_unverified_seconds: seconds }) =>
  verify === "none" ? "–" : unverified ? `${unverified} for ${span(seconds)}` : "0";

function drawPeers(peers) {
  const count = (...states) => (peer) => String(states.reduce((n, state) => n + peer.deliveries[state], 0));
  const does = (p) => [p.receive && "sends to us", p.send && "gets results"].filter(Boolean).join(", ");
  rows("peers", peers, [
    { head: "Peer", cell: (p) => p.name },
    { head: "AE title", cell: (p) => p.ae_title ?? "–", minor: true },
    { head: "Address", cell: (p) => (p.port ? `${p.host}:${p.port}` : p.host ?? "–"), minor: true },
    { head: "Does", cell: (p) => (p.ae_title ? does(p) || "nothing" : "no longer configured"), minor: true },
    { head: "Pending", cell: count("pending", "sending") },
    { head: "Delivered", cell: count("delivered"), minor: true },
    { head: "Committed", cell: (p) => (p.verify === "none" && !p.deliveries.committed ? "–" : String(p.deliveries.committed)), minor: true },
    { head: "To verify", cell: toVerify },
    { head: "Dead", cell: count("dead") },
    { head: "Answers", cell: (p) => (p.circuit === null || p.circuit.state === "closed" ? "yes" : `no: ${p.circuit.reason}`) },
    { head: "Oldest", cell: (p) => (p.oldest_pending_seconds === null ? "–" : span(p.oldest_pending_seconds)) },
  ], "No peers are configured.");
}

function drawModels(models) {
  const versions = (...each) => (each.length ? each.map((model, n) => el("span", {}, n ? ", " : "", versionText(model))) : ["–"]);
  const cell = (of) => (m) => el("span", {}, ...versions(...of(m.rollout)));
  rows("models", models.filter((m) => m.rollout), [
    { head: "Model", cell: (m) => m.name },
    { head: "Champion", cell: cell((r) => [r.champion]) },
    { head: "Canary", cell: (m) => canaryText(m.rollout.canary) },
    { head: "Shadow", cell: cell((r) => r.shadows) },
    { head: "Problem", cell: (m) => el("span", { className: m.rollout.problem ? "state bad" : "" }, m.rollout.problem ?? ""), long: true },
  ], "No model leads yet.");
}

function drawStudies(studies) {
  rows("studies", studies, [
    { head: "StudyInstanceUID", cell: (s) => studyLink(s.study_uid) },
    { head: "State", cell: (s) => stateText(s.state) },
    { head: "Revision", cell: (s) => String(s.revision), minor: true },
    { head: "Instances", cell: (s) => String(s.instances) },
    { head: "From", cell: (s) => s.peer ?? "–", minor: true },
    { head: "Last", cell: (s) => age(s.last_at) },
  ], "No study has arrived yet.");
}

function drawJobs(jobs) {
  rows("jobs", jobs, [
    { head: "Study", cell: (j) => studyLink(j.study_uid) },
    { head: "State", cell: (j) => stateText(j.state) },
    { head: "Model", cell: (j) => modelText(j.model), long: true },
    { head: "Attempt", cell: (j) => String(j.attempt), minor: true },
    { head: "Took", cell: duration },
    { head: "Reason", cell: (j) => withUids(j.reason ?? ""), minor: true, long: true },
    { head: "Created", cell: (j) => age(j.created_at), minor: true },
  ], "No job yet: a job is created when a study has settled and a route takes it.");
}

function stepButton(path, step, text, question) {
  const press = async (event) => {
    if (question && !window.confirm(question)) return;
    event.target.disabled = true;
    try {
      await api(`${path}/${step}`, "POST");
      say(null);
    } catch (error) {
      say(error.message);
    }
    refresh();
  };
  return el("button", { onclick: press }, text);
}

const deadButtons = (path) => el("span", {}, stepButton(path, "requeue", "Requeue"), " ",
  stepButton(path, "dismiss", "Dismiss", "It will not be tried again, and its study may be removed. Dismiss it?"));

function drawDead(jobs, deliveries) {
  const dead = [
    ...jobs.map((j) => ({ ...j, path: `jobs/${j.id}`, what: `job, ${j.model.name}@${j.model.version}` })),
    ...deliveries.map((d) => ({ ...d, path: `deliveries/${d.id}`, what: `delivery to ${d.peer}` })),
  ];
  $("dead-section").hidden = dead.length === 0;
  rows("dead", dead, [
    { head: "Study", cell: (d) => studyLink(d.study_uid) },
    { head: "What", cell: (d) => d.what, long: true },
    { head: "Attempts", cell: (d) => String(d.attempt), minor: true },
    { head: "Reason", cell: (d) => withUids(d.reason ?? ""), long: true },
    { head: "", cell: (d) => deadButtons(d.path) },
  ], "");
}

function drawDecisions(decisions) {
  rows("decisions", decisions, [
    { head: "Study", cell: (d) => studyLink(d.study_uid) },
    { head: "Revision", cell: (d) => String(d.revision), minor: true },
    { head: "Route", cell: (d) => d.route },
    { head: "", cell: (d) => el("span", { className: `state ${d.matched ? "good" : "still"}` }, d.matched ? "yes" : "no") },
    { head: "Reason", cell: (d) => withUids(d.reason), long: true },
    { head: "When", cell: (d) => age(d.at), minor: true },
  ], "No study has been routed yet.");
}

function drawAsides(asides) {
  rows("asides", asides, [
    { head: "Why", cell: (a) => `${a.reason}: ${a.detail}`, long: true },
    { head: "SOPInstanceUID", cell: (a) => uidText(a.sop_instance_uid) },
    { head: "From", cell: (a) => a.peer ?? "–", minor: true },
    { head: "Path", cell: (a) => el("code", {}, a.path), minor: true, long: true },
    { head: "When", cell: (a) => age(a.at) },
  ], "Nothing lies aside.");
}

// ---- one study ---------------------------------------------------------------------------------------------------

/** Events, each with how often it came in a row: hundreds of instances of one job go to one peer alike. */
function inRuns(events) {
  const runs = [];
  for (const event of events) {
    const what = JSON.stringify([event.subject, event.step, event.from_state, event.to_state, event.actor, event.detail]);
    const last = runs.at(-1);
    if (last?.what === what) Object.assign(last, { count: last.count + 1, until: event.at });
    else runs.push({ what, event, count: 1, until: event.at });
  }
  return runs;
}

const timeOfDay = (at) => new Date(at).toISOString().slice(11, 23);

function eventLine({ event, count, until }, start) {
  const times = count > 1 ? `× ${count} ` : "";
  const move = [event.from_state, event.to_state].filter(Boolean).join(" → ");
  const said = Object.entries(event.detail).filter(([, value]) => value !== null)
    .map(([key, value]) => `${key} ${Array.isArray(value) ? value.join(", ") || "none" : value}`);
  if (count > 1) said.unshift(`until ${timeOfDay(until)}`);
  if (event.actor) said.push(`by ${event.actor}`);
  return el("li", {},
    el("time", { dateTime: event.at, title: new Date(event.at).toLocaleString() }, timeOfDay(event.at)),
    el("span", { className: "after" }, `+${span(secondsBetween(start, event.at))}`),
    el("span", {}, `${event.subject} ${event.step} ${times}`, move ? el("span", { className: `state ${tone(event.to_state)}` }, move) : null),
    said.length ? el("small", {}, withUids(said.join(" · "))) : null);
}

/** A measured value; UCUM's code for Hounsfield units is said as people say it. */
const measured = (m) => (m ? `${Number(m.value.toPrecision(5))} ${m.unit.replace("[hnsf'U]", "HU")}` : "");
const statements = (evaluations) => Object.entries(evaluations ?? {}).map(([name, value]) => `${name}: ${value}`).join(" · ");

/** One line a region, one column a measurement, by the keys that the pipeline gave them. */
function findingsTable(findings) {
  const regions = Object.values(findings.regions ?? {});
  if (!regions.length) return null;
  const names = new Map(regions.flatMap((r) => Object.entries(r.measurements).map(([key, m]) => [key, m.name])));
  const columns = [...names].map(([key, name]) => ({ head: name, cell: (r) => measured(r.measurements[key]) }));
  if (regions.some((r) => statements(r.evaluations))) {
    columns.push({ head: "Statements", cell: (r) => statements(r.evaluations), long: true });
  }
  return table([{ head: "Region", cell: (r) => r.label }, ...columns], regions);
}

function jobParts(job) {
  const findings = job.findings ?? {};
  const timings = Object.entries(job.timings ?? {}).map(([stage, s]) => `${stage} ${span(s)}`).join(" · ");
  const lines = [statements(findings.evaluations), ...(findings.notes ?? []), timings && `Took: ${timings}`];
  return [
    el("h3", {}, `${job.model.name}@${job.model.version}, route ${job.route}, revision ${job.revision}`),
    el("p", { className: "facts" }, stateText(job.state), job.reason ? withUids(` · ${job.reason}`) : null),
    findingsTable(findings),
    ...lines.filter(Boolean).map((line) => el("p", { className: "facts" }, line)),
  ];
}

/** Deliveries that stand alike, counted. */
function deliveriesTable(deliveries) {
  const alike = new Map();
  for (const { peer, state, attempt, status, reason } of deliveries) {
    const key = JSON.stringify([peer, state, attempt, status, reason]);
    const line = alike.get(key) ?? { peer, state, attempt, status, reason, count: 0 };
    alike.set(key, { ...line, count: line.count + 1 });
  }
  const hex = (status) => (status === null ? "–" : status.toString(16).toUpperCase().padStart(4, "0"));
  return table([
    { head: "To", cell: (d) => d.peer },
    { head: "Instances", cell: (d) => String(d.count) },
    { head: "State", cell: (d) => stateText(d.state) },
    { head: "Attempt", cell: (d) => String(d.attempt), minor: true },
    { head: "Status", cell: (d) => hex(d.status) },
    { head: "Reason", cell: (d) => withUids(d.reason ?? ""), long: true },
  ], [...alike.values()]);
}

function studyParts(detail) {
  const { study, series, jobs, deliveries, timeline } = detail;
  const kept = `${study.instances} instances in ${series.length} series, ${bytes(series.reduce((n, s) => n + s.size, 0))}`;
  const parts = [
    el("p", { className: "facts" }, stateText(study.state), ` · revision ${study.revision} · ${kept} · from ${study.peer ?? "unknown"}`),
    ...jobs.flatMap(jobParts),
    ...(deliveries.length ? [el("h3", {}, "Deliveries"), deliveriesTable(deliveries)] : []),
    el("h3", {}, "Timeline (UTC)"),
    el("ol", { className: "timeline" }, ...inRuns(timeline).map((run) => eventLine(run, timeline[0].at))),
  ];
  return parts.filter((part) => part !== null);
}

function drawStudy(detail) {
  $("study-uid").textContent = detail.study.study_uid;
  draw("study-body", detail, studyParts);
  if (!$("study").open) $("study").showModal();
}

// ---- the loop ----------------------------------------------------------------------------------------------------

function say(text) {
  $("message").textContent = text ?? "";
  $("message").hidden = !text;
}

function show(signedIn) {
  $("sign-in").hidden = signedIn;
  $("content").hidden = !signedIn;
  $("sign-out").hidden = !signedIn;
}

function signOut(message) {
  sessionStorage.removeItem(TOKEN);
  shown.clear();
  openStudy = null;
  $("study").close();
  for (const id of ["node-line", "counts", "dead", "studies", "jobs", "models", "peers", "decisions", "asides", "study-body"]) {
    $(id).replaceChildren();
  }
  show(false);
  say(message);
}

async function readAll() {
  const [status, studies, jobs, models, deadJobs, deadDeliveries, decisions, asides, study] = await Promise.all([
    api("status"), api("studies?limit=50"), api("jobs?limit=50"), api("models"), api("jobs?state=dead&limit=50"),
    api("deliveries?state=dead&limit=50"), api("decisions?limit=20"), api("aside?limit=20"),
    openStudy ? api(`studies/${encodeURIComponent(openStudy)}`) : null,
  ]);
  drawNode(status);
  drawDead(deadJobs, deadDeliveries);
  drawStudies(studies);
  drawJobs(jobs);
  drawModels(models);
  drawPeers(status.peers);
  drawDecisions(decisions);
  drawAsides(asides);
  if (study && study.study.study_uid === openStudy) drawStudy(study);
  for (const each of document.querySelectorAll("[data-age]")) each.textContent = ageOf(each.dataset.age);
}

async function refresh() {
  clearTimeout(timer);
  if (!sessionStorage.getItem(TOKEN)) return show(false);
  try {
    await readAll();
    show(true);
    if ($("message").dataset.lost) say(null);
    delete $("message").dataset.lost;
  } catch (error) {
    if (error instanceof Refused) return signOut(error.message);
    $("message").dataset.lost = "yes";
    say(`The node does not answer: ${error.message}. What is shown may be old.`);
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, REFRESH_MS);
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token").value.trim());
  $("token").value = "";
  say(null);
  refresh();
});
$("sign-out").addEventListener("click", () => signOut(null));
$("study").addEventListener("close", () => { openStudy = null; });
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
refresh();
