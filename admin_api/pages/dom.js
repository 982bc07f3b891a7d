// What both pages build their content with. Every text becomes a text node: nothing that the node holds is read as HTML.

/** An element with properties and children; a child is a node or a text. */
export function el(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, dataset);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * A table in a box that scrolls sideways by itself.
 * A column is {head, cell: row => node | text, minor?, long?}: minor ones give way on narrow screens, long ones break.
 */
export function table(columns, rows) {
  const kind = (column) => ["minor", "long"].filter((name) => column[name]).join(" ");
  const head = el("tr", {}, ...columns.map((c) => el("th", { className: kind(c), scope: "col" }, c.head)));
  const body = rows.map((row) => el("tr", {}, ...columns.map((c) => el("td", { className: kind(c) }, c.cell(row)))));
  return el("div", { className: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)));
}
