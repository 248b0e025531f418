"use strict";
// Values under the pointer, thumbnails on the map, one class at a time. Without it the page still shows everything.
const tip = document.querySelector(".tip");

function showTip(event) {
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = event.clientX + 16 + width < innerWidth ? event.clientX + 16 : event.clientX - width - 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 4))}px`;
}

function add(parent, tag, className, text) {
  const element = parent.appendChild(document.createElement(tag));
  element.className = className;
  element.textContent = text;
  return element;
}

const short = (v) => (v === null ? "–" : Math.abs(v) >= 1e5 || (v && Math.abs(v) < 1e-3) ? v.toExponential(2) : String(Number(v.toPrecision(4)))).replace("-", "−");

function nearest(xs, x) {
  let best = 0;
  xs.forEach((value, index) => { if (Math.abs(value - x) < Math.abs(xs[best] - x)) best = index; });
  return best;
}

function wire(root) {
  for (const chart of root.querySelectorAll("svg.chart")) {
    const [low, high, left, right, scale] = JSON.parse(chart.dataset.axis);
    const series = JSON.parse(chart.dataset.series);
    const name = chart.querySelector("text.label").textContent;
    const cursor = chart.querySelector(".cursor");
    const log = scale === "log";
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width * chart.viewBox.baseVal.width - left) / (right - left);
      if (at < -0.02 || at > 1.02) return;
      const x = log ? low * (high / low) ** at : low + (high - low) * at;
      const first = series[0][2][nearest(series[0][2], x)];
      const share = log ? Math.log(first / low) / Math.log(high / low) : (first - low) / (high - low);
      cursor.setAttribute("transform", `translate(${left + share * (right - left)})`);
      cursor.style.visibility = "visible";
      tip.replaceChildren();
      add(tip, "b", "", `${name} ${short(first)}`);
      for (const [text, css, xs, ys] of series) {
        const row = add(tip, "div", "row", "");
        add(row, "span", css, text);
        add(row, "span", "", short(ys[nearest(xs, first)]));
      }
      showTip(event);
    });
    chart.addEventListener("pointerleave", () => { tip.hidden = true; cursor.style.visibility = "hidden"; });
  }

  for (const map of root.querySelectorAll(".map")) {
    const points = map.querySelector(".points");
    points.addEventListener("pointerover", (event) => {
      const point = event.target.closest("i");
      if (!point) return;
      tip.replaceChildren();
      const thumbnail = point.querySelector("b");
      if (thumbnail) tip.append(thumbnail.cloneNode());
      add(tip, "div", "", point.dataset.name);
      showTip(event);
    });
    points.addEventListener("pointerout", () => { tip.hidden = true; });
    const keys = map.closest("figure").querySelectorAll(".keys button");
    for (const key of keys) {
      key.addEventListener("click", () => {
        const on = key.getAttribute("aria-pressed") !== "true";
        for (const other of keys) other.setAttribute("aria-pressed", String(on && other === key));
        for (const point of points.children) point.classList.toggle("dim", on && point.dataset.label !== key.dataset.label);
      });
    }
  }
}

wire(document);
