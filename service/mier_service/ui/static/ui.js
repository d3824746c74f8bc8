// The page works without this file; with it, it is live: sections that changed come as server-sent events, charts are
// drawn from the data that their figures carry. A section is left alone while somebody writes in one of its forms.
"use strict";

const HEIGHT = 210;
const charts = new Map(); // id of a figure -> { plot, place, shape, text }
const waiting = new Map(); // id of a section -> its newest HTML, until nobody writes in it

// --- charts ----------------------------------------------------------------------------------------------------

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function rows(data) {
  const limit = data.limit === null ? [] : [data.x.map(() => data.limit)];
  return [data.x, ...data.lines.map((line) => line.y), ...limit];
}

function clock(seconds, exact) {
  return new Date(seconds * 1000).toISOString().slice(11, exact ? 19 : 16);
}

function options(data, width) {
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const shown = (_, value) => (value === null || value === undefined ? "–" : `${value.toPrecision(3).replace("-", "−")} ${data.unit}`);
  const along = (_, ticks) => ticks.map((tick) => (data.xLabel ? (Number.isInteger(tick) ? tick : "") : clock(tick, ticks[1] - ticks[0] < 60)));
  const where = (_, value) => (value === null || value === undefined ? "–" : data.xLabel ? value : clock(value, true));
  const lines = data.lines.map((line) => {
    const stroke = colour(`--series-${line.colour}`);
    return { label: line.label, stroke, width: line.dots ? 0 : 2, value: shown, spanGaps: false,
      points: { show: line.dots || data.x.length < 60, size: line.dots ? 7 : 5, fill: stroke, stroke } };
  });
  if (data.limit !== null) {
    lines.push({ label: data.limitLabel, stroke: colour("--warn"), width: 1, dash: [5, 4], points: { show: false }, value: shown });
  }
  return {
    width, height: HEIGHT, series: [{ label: data.xLabel || "at", value: where }, ...lines],
    scales: { x: { time: false }, y: { range: (_, low, high) => range(data, low, high) } },
    axes: [{ ...axis, values: along, space: 70, size: 30, incrs: data.xLabel ? undefined : [5, 10, 15, 30, 60, 120, 300, 600] }, { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => String(tick).replace("-", "−")) }],
    cursor: { y: false },
  };
}

function range(data, low, high) {
  if (low === null || (low === 0 && high === 0)) return [0, 1];
  if (low >= 0) low = 0;
  const margin = (high - low || 1) * 0.08;
  return [low < 0 ? low - margin : 0, high + margin];
}

function draw(figure) {
  const place = figure.querySelector(".plot");
  if (!place) { charts.delete(figure.id); return; }
  const text = figure.dataset.chart;
  const data = JSON.parse(text);
  const shape = data.lines.map((line) => line.label).join() + data.xLabel + (data.x.length < 60);
  const old = charts.get(figure.id);
  if (old && old.shape === shape) { // moved into the new figure, so that a pointer on it stays where it is
    place.replaceWith(old.place);
    if (old.text !== text) old.plot.setData(rows(data));
    old.text = text;
    newest(old.plot);
    return;
  }
  old?.plot.destroy();
  const plot = new uPlot(options(data, place.clientWidth || 300), rows(data), place);
  plot.over.addEventListener("mouseleave", () => newest(plot));
  charts.set(figure.id, { plot, place, shape, text });
  newest(plot);
}

// What the legend says while no pointer asks for another moment.
function newest(plot) {
  setTimeout(() => { // it draws, and forgets what its legend said, once this script has ended
    if (!plot.over.matches(":hover")) plot.setLegend({ idx: plot.data[0].length - 1 }, false);
  });
}

function drawAll(within) {
  within.querySelectorAll("figure[data-chart]").forEach(draw);
}

new ResizeObserver(() => {
  for (const { plot, place } of charts.values()) {
    if (place.clientWidth) plot.setSize({ width: place.clientWidth, height: HEIGHT });
  }
}).observe(document.documentElement);

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const { plot } of charts.values()) plot.destroy();
  charts.clear();
  document.querySelectorAll("figure .plot").forEach((place) => place.replaceChildren());
  drawAll(document);
});

// --- sections --------------------------------------------------------------------------------------------------

function writing(section) {
  const field = document.activeElement;
  return section.contains(field) && field.closest("form") !== null;
}

function swap(id, html) {
  const old = document.getElementById(id);
  if (!old) return;
  if (writing(old)) { waiting.set(id, html); return; }
  waiting.delete(id);
  const holder = document.createElement("template");
  holder.innerHTML = html;
  const fresh = holder.content.querySelector("section");
  old.querySelectorAll("details[open][id]").forEach((open) => {
    fresh.querySelector(`#${CSS.escape(open.id)}`)?.setAttribute("open", "");
  });
  const focused = old.contains(document.activeElement) ? path(old, document.activeElement) : null;
  if (fresh.dataset.news && fresh.dataset.news !== old.dataset.news) {
    document.getElementById("news").textContent = fresh.dataset.news;
  }
  old.replaceWith(fresh);
  drawAll(fresh);
  if (focused) follow(fresh, focused)?.focus({ preventScroll: true });
}

// Where an element is: within the nearest ancestor that has an id, the how-manieth of what can be focused.
function path(section, element) {
  const holder = element.closest("[id]") ?? section;
  return { id: holder.id, index: focusable(holder).indexOf(element) };
}

function follow(section, { id, index }) {
  const holder = section.id === id ? section : section.querySelector(`#${CSS.escape(id)}`);
  return holder && (index < 0 ? holder : focusable(holder)[index]);
}

function focusable(holder) {
  return [...holder.querySelectorAll("a[href], button, input, summary")];
}

document.addEventListener("focusout", () => {
  setTimeout(() => [...waiting].forEach(([id, html]) => swap(id, html)));
});

// A press of Escape folds an open form, and what it belongs to has the focus again.
document.addEventListener("keydown", (event) => {
  const open = event.key === "Escape" ? event.target.closest("details[open]") : null;
  if (open) { open.open = false; open.querySelector("summary").focus(); }
});

document.addEventListener("toggle", (event) => {
  if (event.target.matches?.("details.why[open]")) event.target.querySelector("input[name=reason]")?.focus();
}, true);

// --- live ------------------------------------------------------------------------------------------------------

function link(on, text) {
  const shown = document.getElementById("link");
  shown.hidden = false;
  shown.className = `link ${on ? "on" : "off"}`;
  document.getElementById("link-text").textContent = text;
}

function listen(url) {
  const source = new EventSource(url);
  source.addEventListener("open", () => link(true, "live"));
  source.addEventListener("sections", (event) => {
    for (const [id, html] of Object.entries(JSON.parse(event.data))) swap(id, html);
  });
  source.addEventListener("problem", (event) => {
    source.close();
    link(false, `not live: ${JSON.parse(event.data).title}. Reload the page.`);
  });
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) { link(false, "connecting again"); return; }
    link(false, "not live: the service refused. Reload the page.");
  });
}

drawAll(document);
document.querySelector("[autofocus]")?.focus();
if (document.body.dataset.live) listen(document.body.dataset.live);
