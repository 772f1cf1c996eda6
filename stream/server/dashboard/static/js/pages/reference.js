// The description of the REST interface, built from /openapi.json.

import { get } from "../api.js";
import { button, empty, fill, h } from "../dom.js";
import { say } from "../notices.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const DEEPEST = 4;

export function referencePage(page, { setTitle }) {
  setTitle("API");
  page.classList.add("narrow");
  const holder = h("div", { class: "reference" }, h("div", { class: "bone bone-picture" }));
  const version = h("p", { class: "soft small" });
  const search = h("input", {
    class: "input wall-search",
    type: "search",
    placeholder: "Find a request",
    "aria-label": "Find a request",
    oninput: filter,
  });
  fill(
    page,
    h(
      "div",
      { class: "head" },
      h("div", { class: "title" }, h("h1", {}, "API"), version),
      h(
        "div",
        { class: "tools" },
        search,
        h("a", { class: "button", href: "/openapi.json", download: "" }, "openapi.json"),
      ),
    ),
    h(
      "p",
      { class: "soft reference-intro" },
      "Scripts send the token as ",
      h("code", {}, "Authorization: Bearer TOKEN"),
      ". Errors are JSON: ",
      h("code", {}, '{"error": "one line"}'),
      ". Live changes come as Server-Sent Events from ",
      h("code", {}, "/api/events/stream"),
      ", pictures from ",
      h("code", {}, "/api/cameras/NAME/live"),
      " (WebSocket) or ",
      h("code", {}, "/api/cameras/NAME/stream.mjpeg"),
      ".",
    ),
    holder,
  );

  function filter() {
    const query = search.value.trim().toLowerCase();
    for (const group of holder.querySelectorAll(".reference-group")) {
      let any = false;
      for (const item of group.querySelectorAll(".operation")) {
        item.hidden = !item.dataset.text.includes(query);
        any ||= !item.hidden;
      }
      group.hidden = !any;
    }
  }

  get("/openapi.json").then(
    (document) => {
      version.textContent = `${document.info?.title ?? "gpen-stream"} ${document.info?.version ?? ""}`;
      fill(holder, groups(document));
    },
    (error) => fill(holder, empty("broken", "The description cannot be shown", error.message)),
  );
}

function groups(document) {
  const found = new Map();
  for (const [path, item] of Object.entries(document.paths ?? {})) {
    for (const method of METHODS.filter((each) => item[each])) {
      const part = path.split("/")[1] === "api" ? path.split("/")[2] : "health";
      const tag = item[method].tags?.[0] ?? part;
      if (!found.has(tag)) found.set(tag, []);
      found.get(tag).push(operation(document, method, path, item[method]));
    }
  }
  return [...found].map(([tag, operations]) =>
    h(
      "section",
      { class: "reference-group", "aria-label": tag },
      h("h2", {}, tag),
      h("div", { class: "panel" }, operations),
    ),
  );
}

function operation(document, method, path, described) {
  const title = described.summary ?? described.operationId ?? "";
  const body = h("div", { class: "operation-body" });
  const details = h(
    "details",
    { class: "operation", data: { text: `${method} ${path} ${title}`.toLowerCase() } },
    h(
      "summary",
      {},
      h("span", { class: `method ${method}` }, method.toUpperCase()),
      h("code", { class: "wrap" }, path),
      h("span", { class: "soft small clip" }, title),
    ),
    body,
  );
  // Built when it is opened: there are many operations, and most are never read.
  details.addEventListener("toggle", () => {
    if (details.open && !body.firstChild) fill(body, explain(document, method, path, described));
  });
  return details;
}

function explain(document, method, path, described) {
  const parameters = (described.parameters ?? []).filter((one) => one.in === "path" || one.in === "query");
  const parts = [];
  if (described.description) parts.push(h("p", { class: "wrap" }, described.description));
  if (parameters.length > 0) {
    const rows = parameters.map((one) => field(document, one.name, one.schema, one.required, one.description));
    parts.push(h("h3", {}, "Parameters"), table(rows));
  }
  for (const [kind, content] of Object.entries(described.requestBody?.content ?? {})) {
    parts.push(h("h3", {}, `Body, ${kind}`), schemaTable(document, content.schema));
  }
  const answers = Object.entries(described.responses ?? {}).map(([status, answer]) => [
    h("code", {}, status),
    "",
    answer.description ?? "",
  ]);
  if (answers.length > 0) parts.push(h("h3", {}, "Answers"), table(answers));
  const command = curl(document, method, path, described);
  const copy = button("Copy", {
    icon: "copy",
    kind: "slim",
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(command);
        say("Copied");
      } catch {
        getSelection().selectAllChildren(code);
      }
    },
  });
  const code = h("pre", { tabindex: "0" }, command);
  parts.push(h("h3", {}, "From a shell"), h("div", { class: "sample" }, code, copy));
  const streams = /stream|live|mjpeg|output|input|segments\/\{|snapshot/.test(path);
  if (method === "get" && !streams) parts.push(trial(path, parameters));
  return parts;
}

/** A form that sends the request, and the server's answer. */
function trial(path, parameters) {
  const inputs = parameters.map((one) => [
    one,
    h("input", { class: "input", placeholder: one.name, "aria-label": one.name, required: one.required }),
  ]);
  const answer = h("pre", { tabindex: "0", hidden: true, "aria-live": "polite" });
  const send = async (event) => {
    event.preventDefault();
    let address = path;
    const query = new URLSearchParams();
    for (const [one, input] of inputs) {
      if (one.in === "path") address = address.replace(`{${one.name}}`, encodeURIComponent(input.value));
      else if (input.value) query.set(one.name, input.value);
    }
    answer.hidden = false;
    try {
      const response = await fetch(query.size ? `${address}?${query}` : address, { cache: "no-store" });
      const text = await response.text();
      answer.textContent = `${response.status} ${response.statusText}\n${pretty(text)}`;
    } catch {
      answer.textContent = "The server cannot be reached";
    }
  };
  return h(
    "form",
    { class: "trial", onsubmit: send },
    h("h3", {}, "Try it"),
    h("div", { class: "form-row" }, inputs.map(([, input]) => input), h("button", { class: "button slim" }, "Send")),
    answer,
  );
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text.slice(0, 20000);
  }
}

function resolve(document, schema = {}) {
  if (!schema.$ref) return schema;
  return schema.$ref.slice(2).split("/").reduce((at, key) => at?.[key], document) ?? {};
}

function typeName(document, given = {}) {
  const schema = resolve(document, given);
  if (schema.anyOf || schema.oneOf) {
    return (schema.anyOf ?? schema.oneOf).map((one) => typeName(document, one)).join(" or ");
  }
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  if (schema.type === "array") {
    const items = schema.prefixItems ?? (schema.items ? [schema.items] : []);
    return `list of ${[...new Set(items.map((one) => typeName(document, one)))].join(", ") || "anything"}`;
  }
  return schema.format === "binary" ? "file" : (schema.type ?? schema.title ?? "anything");
}

function field(document, name, given, required, description) {
  const schema = resolve(document, given);
  const notes = [description ?? given?.description ?? schema.description ?? ""];
  if (schema.minimum !== undefined || schema.maximum !== undefined) {
    notes.push(`from ${schema.minimum ?? "–"} to ${schema.maximum ?? "–"}`);
  }
  if (given?.default !== undefined && given.default !== null) notes.push(`default ${JSON.stringify(given.default)}`);
  return [
    [h("code", {}, name), required && h("span", { class: "needed" }, "required")],
    typeName(document, given),
    notes.filter(Boolean).join("; "),
  ];
}

function schemaTable(document, given) {
  const schema = resolve(document, given);
  const rows = Object.entries(schema.properties ?? {}).map(([name, one]) =>
    field(document, name, one, schema.required?.includes(name)),
  );
  return rows.length > 0 ? table(rows) : h("p", { class: "soft" }, typeName(document, schema));
}

function table(rows) {
  const lines = rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell))));
  return h("div", { class: "table-scroll" }, h("table", { class: "table" }, h("tbody", {}, lines)));
}

function example(document, given, depth = 0) {
  const schema = resolve(document, given);
  if (schema.example !== undefined) return schema.example;
  if (schema.default !== undefined) return schema.default;
  if (schema.anyOf) return example(document, schema.anyOf[0], depth);
  if (schema.enum) return schema.enum[0];
  if (schema.type === "object" && depth < DEEPEST) {
    const names = Object.keys(schema.properties ?? {}).filter((name) => schema.required?.includes(name));
    return Object.fromEntries(names.map((name) => [name, example(document, schema.properties[name], depth + 1)]));
  }
  return { string: "text", number: 0.5, integer: 1, boolean: true, array: [] }[schema.type] ?? {};
}

function curl(document, method, path, described) {
  const lines = [`curl -H "Authorization: Bearer $TOKEN"`];
  if (method !== "get") lines.push(`-X ${method.toUpperCase()} -H "X-Requested-With: gpen-stream"`);
  const content = described.requestBody?.content ?? {};
  if (content["application/json"]) {
    const body = JSON.stringify(example(document, content["application/json"].schema));
    lines.push(`-H "Content-Type: application/json"`, `-d '${body}'`);
  } else if (content["multipart/form-data"]) lines.push("-F file=@video.mp4");
  lines.push(`"${location.origin}${path}"`);
  return lines.join(" \\\n  ");
}
