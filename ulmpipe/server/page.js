"use strict";
// Asks POST predict and shows the answer. What comes from a text or a label becomes text nodes, never HTML.
const MOST_LABELS = 10, LEAST_MARKED = 0.2; // of what the strongest word did, as in a report

const at = (id) => document.getElementById(id);
const form = at("ask"), text = at("text"), button = form.querySelector("button");

function element(tag, content, className) {
  const made = document.createElement(tag);
  made.append(content);
  if (className) made.className = className;
  return made;
}

function percent(p) {
  const shown = (100 * p).toFixed(1);
  return (shown === "100.0" && p < 1 ? "> 99.9" : shown === "0.0" && p > 0 ? "< 0.1" : shown) + " %";
}

function row(label, p, given) {
  const made = element("tr", element("th", label), given ? "given" : "");
  made.firstChild.scope = "row";
  const bar = element("div", "");
  bar.style.setProperty("--share", p);
  made.append(element("td", element("div", bar), "bar"), element("td", percent(p)));
  return made;
}

function word([token, score], most, total) {
  const shown = token.trim() ? token : JSON.stringify(token);
  if (Math.abs(score) < LEAST_MARKED * most || !score) return /^xx[a-z]+$/.test(token) ? element("small", shown) : shown;
  const side = score > 0 ? "for" : "against", made = element("mark", shown, side);
  made.style.setProperty("--strength", Math.abs(score) / most);
  made.title = `${score > 0 ? "+" : "−"}${percent(Math.abs(score) / total)} ${side} it`;
  return made;
}

function show(found) {
  const falling = Object.entries(found.probabilities).sort((a, b) => b[1] - a[1]);
  at("said").replaceChildren(found.labels.join(", ") || `none of the labels (nearest: ${found.label})`);
  at("labels").tBodies[0].replaceChildren(...falling.slice(0, MOST_LABELS).map(([label, p]) => row(label, p, found.labels.includes(label))));
  at("rest").textContent = falling.length > MOST_LABELS ? `and ${falling.length - MOST_LABELS} labels less probable than these` : "";
  at("why").hidden = !found.words;
  if (found.words) {
    const scores = found.words.map(([, score]) => Math.abs(score)), most = Math.max(...scores, 0), total = scores.reduce((a, b) => a + b, 0);
    at("label").textContent = found.label;
    at("words").replaceChildren(...found.words.flatMap((scored) => [word(scored, most, total), " "]));
  }
  at("answer").hidden = false;
}

async function ask() {
  const body = { text: text.value };
  if (form.dataset.explain === "true") body.explain = true;
  const answered = await fetch("predict", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const found = await answered.json();
  if (!answered.ok) throw new Error(found.error);
  return found;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  at("error").textContent = "";
  try {
    show(await ask());
  } catch (err) {
    at("answer").hidden = true;
    at("error").textContent = err instanceof TypeError || err instanceof SyntaxError ? "The server does not answer." : err.message;
  }
  button.removeAttribute("aria-disabled");
});

text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});

at("curl").textContent = `curl ${new URL("predict", location.href)} -H 'content-type: application/json' -d '{"text": "I would go again tomorrow."}'`;
