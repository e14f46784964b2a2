"""The report's one script: themes, searching and sorting errors, opening what is folded before printing.

It reads the page and asks for nothing; the page's policy allows exactly these bytes.
"""

from __future__ import annotations

import base64
import hashlib

SCRIPT = """
"use strict";
(() => {
  const root = document.documentElement, all = (css, at = document) => [...at.querySelectorAll(css)];
  const theme = document.querySelector("button.theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const dark = getComputedStyle(root).getPropertyValue("--theme").trim() === "dark";
    root.dataset.theme = dark ? "light" : "dark";
  });

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    opened.forEach(one => { one.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach(one => { one.open = false; }));

  const links = new Map(all("nav a").map(link => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver(seen => seen.forEach(one => {
    if (!one.isIntersecting) return;
    links.forEach(link => link.removeAttribute("aria-current"));
    const link = links.get(one.target.id);
    link.setAttribute("aria-current", "true");
    const bar = link.closest("ul"), box = link.getBoundingClientRect(), room = bar.getBoundingClientRect();
    if (box.left < room.left || box.right > room.right) bar.scrollLeft += box.left - room.left - 16;
  }), { rootMargin: "-20% 0px -70% 0px" });
  all("section[id]").filter(one => links.has(one.id)).forEach(one => watch.observe(one));

  const table = document.querySelector("table.errors");
  if (!table) return;
  const body = table.tBodies[0], rows = [...body.rows], step = Number(table.dataset.step);
  const filters = document.querySelector(".filters"), more = document.querySelector(".more");
  const found = filters.querySelector(".found");
  const words = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));
  const value = name => filters.querySelector(`[data-filter=${name}]`)?.value ?? "";
  let limit = step;

  const show = () => {
    const search = value("search").trim().toLowerCase(), label = value("label"), group = value("group");
    const likely = filters.querySelector("[data-filter=likely]").checked;
    const fit = [...body.rows].filter(row => words.get(row).includes(search)
      && (!label || row.dataset.label === label)
      && (!group || row.dataset.groups.split(" ").includes(group))
      && (!likely || "likely" in row.dataset));
    const shown = new Set(fit.slice(0, limit));
    rows.forEach(row => { row.hidden = !shown.has(row); });
    more.hidden = fit.length <= limit;
    found.textContent = found.dataset.words.replace("{shown}", shown.size).replace("{all}", fit.length);
  };

  const key = (row, column, kind) =>
    kind === "number" ? Number(row.cells[column].dataset.value) : row.cells[column].textContent;
  const sort = (head, column, kind) => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    all("th", table.tHead).forEach(one => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const order = rows.map((row, place) => [key(row, column, kind), place, row]).sort(([a, i], [b, j]) =>
      ((kind === "number" ? a - b : a.localeCompare(b, root.lang)) || i - j) * (up ? 1 : -1));
    body.append(...order.map(entry => entry[2]));
    show();
  };

  all("th[data-sort]", table.tHead).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(head, column, head.dataset.sort));
  });
  table.tHead.rows[0].cells[0].setAttribute("aria-sort", "descending");
  filters.addEventListener("input", () => { limit = step; show(); });
  more.querySelector("button").addEventListener("click", () => { limit += step; show(); });
  filters.hidden = false;
  show();
})();
"""


def source_for_policy() -> str:
    """The script's hash as a source in a Content-Security-Policy."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode() + "'"
