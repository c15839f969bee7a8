// Lines over time, drawn by uPlot (vendored, see vendor/uplot).

import { make } from "./dom.js";

/* global uPlot */

const HEIGHT = 118;

const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const MINUTE = 60;
const clock = (seconds) => new Date(seconds * 1000).toTimeString().slice(0, 8);

const ago = (minutes) => (minutes ? `-${minutes} min` : "now");

// A chart of one or more lines, [{label, colour}], over the last `seconds`. A colour is the name of a CSS variable. `reading`
// shows the values under the pointer, or else the newest.
export function chart(container, reading, lines, format, seconds) {
  const axis = { stroke: colour("--ink-2"), font: "11px system-ui, sans-serif", ticks: { show: false },
    grid: { stroke: colour("--line"), width: 1 } };
  const options = {
    width: Math.max(container.clientWidth, 120),
    height: HEIGHT,
    // The newest label stands half beyond the axis, and the lowest one half below it.
    padding: [8, 18, 4, 0],
    cursor: { points: { size: 6 }, drag: { x: false, y: false } },
    legend: { show: false },
    hooks: { setCursor: [read], setData: [read] },
    scales: { x: { range: (_, low, high) => [(high ?? 0) - seconds, high ?? 0] }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [
      { ...axis, grid: { show: false }, size: 28, gap: 8, splits: minutes,
        values: (_, ticks) => ticks.map((_, place) => ago(ticks.length - 1 - place)) },
      { ...axis, space: 28, size: 44 },
    ],
    series: [
      {},
      ...lines.map((line) => ({ stroke: colour(line.colour), width: 1.75, spanGaps: false, points: { show: false } })),
    ],
  };
  // Whole minutes before the newest point.
  function minutes({ scales }) {
    return Array.from({ length: seconds / MINUTE + 1 }, (_, place) => scales.x.max - seconds + place * MINUTE);
  }
  const values = lines.map((line) => {
    const value = make("span", { class: "value" });
    const key = make("span", { class: "key" });
    key.style.setProperty("--key", `var(${line.colour})`);
    reading.append(key, line.label ? `${line.label} ` : "", value);
    return value;
  });
  function read({ data, cursor }) {
    const place = cursor.idx ?? data[0].length - 1;
    values.forEach((value, line) => { value.textContent = format(data[line + 1][place]); });
    reading.title = place < 0 ? "" : clock(data[0][place]);
  }
  const plot = new uPlot(options, [[], ...lines.map(() => [])], container);
  new ResizeObserver(() => plot.setSize({ width: Math.max(container.clientWidth, 120), height: HEIGHT })).observe(container);
  // Reads the colours at each drawing, because the colour scheme may change.
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw());
  return {
    show(times, values, description) {
      plot.setData([times, ...values]);
      container.setAttribute("aria-label", description);
    },
  };
}
