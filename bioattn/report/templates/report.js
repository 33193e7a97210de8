// Sorting, filtering and column switching. Without scripts every row is still there to read.
"use strict";
(function () {
  const query = new URLSearchParams(window.location.search);

  function keyOf(row, index) {
    return row.cells[index].dataset.sort || "";
  }

  // Numbers by size, other values by letters; empty cells last, whichever way round.
  function compare(a, b, index, sign) {
    const left = keyOf(a, index), right = keyOf(b, index);
    if (left === "" || right === "") return (left === "") - (right === "");
    const x = Number(left), y = Number(right);
    if (!Number.isNaN(x) && !Number.isNaN(y)) return sign * (x - y);
    return sign * left.localeCompare(right);
  }

  function sortBy(table, header, direction) {
    const sign = direction === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    rows.sort((a, b) => compare(a, b, header.cellIndex, sign));
    body.append(...rows);
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
  }

  function makeSortable(table) {
    for (const header of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = header.textContent;
      header.replaceChildren(button);
      button.addEventListener("click", () => {
        const first = header.classList.contains("number") ? "descending" : "ascending";
        const second = first === "ascending" ? "descending" : "ascending";
        sortBy(table, header, header.getAttribute("aria-sort") === first ? second : first);
      });
    }
  }

  function columnIndex(table, key) {
    return Array.from(table.tHead.rows[0].cells).findIndex((cell) => cell.dataset.key === key);
  }

  function addTools(tools) {
    const table = document.getElementById(tools.dataset.for);
    const find = tools.querySelector('[data-role="find"]');
    const toggles = Array.from(tools.querySelectorAll('[data-role="verdict"]'));
    const columns = tools.querySelector('[data-role="columns"]');
    const shown = tools.querySelector('[data-role="shown"]');
    const verdictAt = columnIndex(table, "verdict");
    const rows = Array.from(table.tBodies[0].rows);

    function filter() {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      const off = new Set(toggles.filter((t) => t.getAttribute("aria-pressed") === "false").map((t) => t.dataset.verdict));
      let n = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const verdict = verdictAt < 0 ? "" : row.cells[verdictAt].dataset.verdict;
        row.hidden = off.has(verdict) || !words.every((word) => text.includes(word));
        if (!row.hidden) n += 1;
      }
      const without = off.size ? "; switched off: " + Array.from(off).join(", ") : "";
      shown.textContent = n + " of " + rows.length + " rows shown" + without;
    }

    function press(button, on) {
      button.setAttribute("aria-pressed", String(on));
    }

    find.addEventListener("input", filter);
    for (const toggle of toggles) {
      toggle.addEventListener("click", () => {
        press(toggle, toggle.getAttribute("aria-pressed") !== "true");
        filter();
      });
    }
    columns.addEventListener("click", () => press(columns, !table.classList.toggle("compact")));

    // ?find=..&verdict=..&sort=column&direction=ascending&columns=all makes a view that can be linked to.
    find.value = query.get("find") || "";
    const wanted = query.getAll("verdict");
    const known = wanted.filter((name) => toggles.some((toggle) => toggle.dataset.verdict === name));
    if (known.length) toggles.forEach((toggle) => press(toggle, known.includes(toggle.dataset.verdict)));
    if (query.get("columns") === "all") columns.click();
    const sortIndex = columnIndex(table, query.get("sort"));
    if (sortIndex >= 0) sortBy(table, table.tHead.rows[0].cells[sortIndex], query.get("direction") || "ascending");
    filter();
    tools.hidden = false;
  }

  function followScroll() {
    const links = new Map(Array.from(document.querySelectorAll("nav a"), (a) => [a.getAttribute("href").slice(1), a]));
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        links.forEach((link) => link.removeAttribute("aria-current"));
        const link = links.get(entry.target.id);
        if (link) link.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "0px 0px -70% 0px" });
    document.querySelectorAll("section").forEach((section) => observer.observe(section));
  }

  document.querySelectorAll("table.sortable").forEach(makeSortable);
  document.querySelectorAll(".tools").forEach(addTools);
  followScroll();
})();
