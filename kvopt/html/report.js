"use strict";
(() => {
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) { part.open = true; opened.push(part); }
  });
  addEventListener("afterprint", () => { while (opened.length) opened.pop().open = false; });

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".copy");
    if (button) copy(button);
  });

  async function copy(button) {
    const text = button.closest("figure").querySelector("pre");
    let done = false;
    try {
      await navigator.clipboard.writeText(text.textContent);
      done = true;
    } catch {
      getSelection().selectAllChildren(text);  // what is selected can be copied by hand
      done = document.execCommand("copy");
    }
    const label = button.firstChild;
    label.data = done ? "Copied" : "Selected";
    setTimeout(() => { label.data = "Copy"; }, 2000);
  }

  const points = JSON.parse(document.getElementById("data").textContent);
  if (!points.length) return;

  const byId = (id) => document.getElementById(id);
  const picture = byId("picture"), svg = picture.querySelector("svg"), tip = byId("tip"), table = byId("all"), filters = byId("filters");
  const keyed = (selector) => new Map([...document.querySelectorAll(selector)].map((one) => [Number(one.dataset.index), one]));
  const circles = keyed("#points .point"), holes = keyed("#shown circle"), rows = keyed("#all tbody tr");
  const NEAR = 14;  // SVG units from the pointer to the point that it means
  const hidden = new Set();
  let chosen = -1;

  const drawn = () => points.filter((point) => circles.has(point.index) && !hidden.has(point.index));
  const distance = (point, at) => Math.hypot(point.x - at.x, point.y - at.y);
  const nearest = (some, at) => some.reduce((best, one) => (best && distance(best, at) <= distance(one, at) ? best : one), undefined);

  function pointed(event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const best = nearest(drawn(), at);
    return best && distance(best, at) <= NEAR ? best : undefined;
  }

  // What is pointed at or focused

  function showTip(point) {
    if (!point) { tip.hidden = true; return; }
    const name = document.createElement("strong");
    name.textContent = point.title;
    const lines = [["Runs", point.where], ...point.said].map(([label, value]) => {
      const line = document.createElement("span");
      for (const text of [label, value]) line.appendChild(document.createElement("span")).textContent = text;
      return line;
    });
    tip.replaceChildren(name, ...lines);
    tip.hidden = false;
    const spot = circles.get(point.index).getBoundingClientRect(), frame = picture.getBoundingClientRect();
    const x = spot.x + spot.width / 2 - frame.x + picture.scrollLeft, y = spot.y + spot.height / 2 - frame.y;
    const left = x + 14 + tip.offsetWidth > picture.scrollLeft + frame.width ? x - 14 - tip.offsetWidth : x + 14;
    tip.style.left = `${Math.max(picture.scrollLeft, left)}px`;
    tip.style.top = `${Math.max(0, Math.min(y - tip.offsetHeight / 2, frame.height - tip.offsetHeight))}px`;
  }

  svg.addEventListener("pointermove", (event) => {
    const point = pointed(event);
    svg.style.cursor = point ? "pointer" : "";
    showTip(point);
  });
  svg.addEventListener("pointerleave", () => showTip());
  svg.addEventListener("click", (event) => {
    const point = pointed(event);
    if (point) choose(point.index);
  });

  // Choosing

  function choose(index) {
    mark(index);
    byId("chosen").replaceChildren(byId(`plan-${index}`).content.cloneNode(true));
    byId("chosen").parentElement.scrollTop = 0;
    byId("said").textContent = `Chosen: ${points[index].title}`;
  }

  function mark(index) {
    for (const one of [circles.get(chosen), rows.get(chosen)]) if (one) pressed(one, false);
    for (const one of [circles.get(index), rows.get(index)]) if (one) pressed(one, true);
    chosen = index;
    if (circles.has(index) && !hidden.has(index)) stop(index);
  }

  function pressed(one, is) {
    one.classList.toggle("is-chosen", is);
    (one.querySelector("button") || one).setAttribute("aria-pressed", is);
  }

  // The points are one stop of the Tab key; arrows go from point to point

  function stop(index) {
    for (const [place, circle] of circles) circle.setAttribute("tabindex", place === index ? 0 : -1);
  }

  function beside(point, key) {
    const some = drawn(), own = some.filter((one) => one.front === point.front), place = own.indexOf(point);
    if (key === "Home") return own[0];
    if (key === "End") return own[own.length - 1];
    if (key === "ArrowRight") return own[place + 1];
    if (key === "ArrowLeft") return own[place - 1];
    return nearest(some.filter((one) => one.front !== point.front), point);
  }

  byId("points").addEventListener("keydown", (event) => {
    const point = points[Number(event.target.dataset.index)];
    if (event.key === "Escape") return showTip();
    if (event.key === "Enter" || event.key === " ") choose(point.index);
    else if (["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) {
      const next = beside(point, event.key);
      if (next) { stop(next.index); circles.get(next.index).focus(); }
    } else return;
    event.preventDefault();
  });
  byId("points").addEventListener("focusin", (event) => showTip(points[Number(event.target.dataset.index)]));
  byId("points").addEventListener("focusout", () => showTip());

  // Filters

  function filter() {
    const form = new FormData(filters), where = form.getAll("where"), holds = form.has("holds");
    hidden.clear();
    for (const point of points) {
      const shown = where.includes(point.where) && (point.holds || !holds);
      if (!shown) hidden.add(point.index);
      for (const one of [circles, holes, rows]) {
        const part = one.get(point.index);
        if (part) part.style.display = shown ? "" : "none";
      }
    }
    byId("veil").setAttribute("display", hidden.size ? "inline" : "none");
    byId("count").textContent = `${points.length - hidden.size} of ${points.length} plans shown`;
    const some = drawn();
    if (some.length) stop(some.some((one) => one.index === chosen) ? chosen : some[0].index);
    showTip();
  }
  filters.addEventListener("change", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());

  // The table

  const compared = new Intl.Collator("en", { numeric: true }).compare;
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    head.firstElementChild.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", way);
      const sign = way === "ascending" ? 1 : -1, value = (row) => row.cells[column].dataset.value;
      const sorted = [...table.tBodies[0].rows].sort((one, other) => {
        const a = value(one), b = value(other);
        if (a === "" || b === "") return (a === "") - (b === "");  // what is unknown comes last
        return sign * (isNaN(a) || isNaN(b) ? compared(a, b) : a - b);
      });
      table.tBodies[0].append(...sorted);
    });
  }
  table.tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) choose(Number(row.dataset.index));
  });

  mark(Number(byId("points").querySelector('[tabindex="0"]')?.dataset.index ?? 0));
  filter();
})();
