// Live parts of pages, charts, and the field that opens a job. The pages work without it.
"use strict";

const COLOURS = ["#2f7ed8", "#d9534f", "#2e9e5b", "#b8860b", "#8e5bd0", "#0f9aa8"];
const drawn = new WeakMap();

function draw(place) {
  const chart = JSON.parse(place.dataset.chart);
  const before = drawn.get(place);
  const names = chart.names.join("\n");
  if (before && before.names === names) {
    before.plot.setData(chart.data);
    return;
  }
  if (before) before.plot.destroy();
  const style = getComputedStyle(place);
  const line = { stroke: style.borderColor, width: 1 };
  const axis = { stroke: style.color, grid: line, ticks: line };
  const clock = (time) => new Date(time * 1000).toISOString().slice(11, 16);
  const plot = new uPlot(
    {
      width: place.clientWidth,
      height: 180,
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [Math.min(low ?? 0, 0), Math.max(high ?? 0, 1e-3) * 1.05] } },
      tzDate: (time) => uPlot.tzDate(new Date(time * 1000), "UTC"),
      axes: [{ ...axis, values: (_, times) => times.map(clock) }, { ...axis, size: 56 }],
      series: [
        { label: "UTC", value: (_, time) => (time == null ? "" : clock(time)) },
        ...chart.names.map((name, n) => ({
          label: name,
          value: (_, value) => (value == null ? "" : Number(value.toPrecision(3))),
          stroke: COLOURS[n % COLOURS.length],
          width: 2,
          dash: n < COLOURS.length / 2 ? [] : [6, 3],
          spanGaps: false,
        })),
      ],
    },
    chart.data,
    place,
  );
  drawn.set(place, { plot, names });
}

function drawAll() {
  for (const place of document.querySelectorAll("[data-chart]")) draw(place);
}

function follow(live) {
  const trouble = document.getElementById("trouble");
  const source = new EventSource(live.dataset.live);
  for (const part of live.querySelectorAll("[data-part]")) {
    source.addEventListener(part.dataset.part, async (event) => {
      trouble.textContent = "";
      await htmx.swap({ text: event.data, target: part, swap: "innerMorph" });
      drawAll();
    });
  }
  source.addEventListener("trouble", (event) => {
    trouble.textContent = event.data;
  });
  addEventListener("pagehide", () => source.close());
}

drawAll();
document.querySelectorAll("[data-live]").forEach(follow);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => location.reload());
addEventListener("resize", () => {
  for (const place of document.querySelectorAll("[data-chart]"))
    drawn.get(place)?.plot.setSize({ width: place.clientWidth, height: 180 });
});
document.getElementById("by-id")?.addEventListener("submit", (event) => {
  event.preventDefault();
  location.href = `/jobs/${Number(new FormData(event.target).get("id"))}`;
});
