// The API's description, drawn from openapi.json: it needs nothing from the internet, which a hospital network has not.

import { el, table } from "./dom.js";

const nameOf = (ref) => ref.split("/").at(-1);

/** A JSON schema as a word: the type, or a link to the named schema. */
function typeText(schema) {
  if (schema.$ref) return [el("a", { href: `#${nameOf(schema.$ref)}` }, nameOf(schema.$ref))];
  if (schema.anyOf) return schema.anyOf.flatMap((each, n) => [n ? " or " : "", ...typeText(each)]);
  if (schema.type === "array") return ["list of ", ...typeText(schema.items ?? {})];
  if (schema.enum) return [schema.enum.join(", ")];
  if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    return ["map to ", ...typeText(schema.additionalProperties)];
  }
  const bounds = [schema.minimum, schema.maximum].every((n) => n !== undefined) ? ` ${schema.minimum} to ${schema.maximum}` : "";
  return [`${schema.type ?? "any"}${schema.format ? ` (${schema.format})` : ""}${bounds}`];
}

function parameters(operation) {
  if (!operation.parameters) return null;
  return table([
    { head: "Parameter", cell: (p) => el("code", {}, p.name) },
    { head: "In", cell: (p) => p.in },
    { head: "Type", cell: (p) => el("span", {}, ...typeText(p.schema)), long: true },
    { head: "", cell: (p) => p.description ?? (p.schema.default === undefined ? "" : `default ${p.schema.default}`), long: true },
  ], operation.parameters);
}

function answers(operation) {
  return table([
    { head: "Status", cell: ([status]) => status },
    { head: "Body", cell: ([, answer]) => el("span", {}, ...typeText(Object.values(answer.content ?? {})[0]?.schema ?? {})) },
    { head: "", cell: ([, answer]) => answer.description, long: true },
  ], Object.entries(operation.responses));
}

function operationPart(path, method, operation) {
  return el("div", { className: "operation" },
    el("b", {}, operation.summary), " ",
    el("code", {}, `${method.toUpperCase()} ${path}`),
    el("p", {}, [operation.description, operation.security ? "Needs the token." : ""].filter(Boolean).join(" ")),
    parameters(operation), answers(operation));
}

function schemaPart(name, schema) {
  const fields = schema.properties
    ? table([
      { head: "Field", cell: ([field]) => el("code", {}, field) },
      { head: "Type", cell: ([, each]) => el("span", {}, ...typeText(each)) },
      { head: "", cell: ([, each]) => each.description ?? "", long: true },
    ], Object.entries(schema.properties))
    : el("p", {}, ...typeText(schema));
  return el("div", { className: "operation", id: name }, el("b", {}, name), el("p", {}, schema.description ?? ""), fields);
}

const api = await (await fetch("openapi.json")).json();
document.getElementById("title").textContent = api.info.title;
document.getElementById("node-line").textContent = `version ${api.info.version} · ${api.info.summary}`;
const byTag = Map.groupBy(
  Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => [path, method, operation])),
  ([, , operation]) => operation.tags[0],
);
document.getElementById("content").append(
  ...[...byTag].map(([tag, operations]) => el("section", {}, el("h2", {}, tag), ...operations.map((each) => operationPart(...each)))),
  el("section", {}, el("h2", {}, "Schemas"), ...Object.entries(api.components.schemas).map((each) => schemaPart(...each))),
);
