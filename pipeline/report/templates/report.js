// What moves in a page: plots that follow width and colour scheme, and rows that are searched, filtered and sorted.
// Data only ever become text (textContent), never markup.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 12;

  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  };

  // --- plots -------------------------------------------------------------------------------------------------------
  const themed = (value, style) => {
    if (typeof value === "string" && value.startsWith("var(--")) return style.getPropertyValue(value.slice(4, -1)).trim();
    if (Array.isArray(value)) return value.map((each) => themed(each, style));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, themed(each, style)]));
    return value;
  };
  const config = {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: {
      labelColor: "var(--muted)", titleColor: "var(--muted)", gridColor: "var(--line)", domainColor: "var(--line)",
      tickColor: "var(--line)", labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500, labelLimit: 170,
      titlePadding: 8,
    },
    axisY: { titleAnchor: "middle" },
    legend: { labelColor: "var(--ink)", labelFontSize: 12, labelLimit: 260, symbolStrokeWidth: 2, offset: 8 },
    text: { fontSize: 12 },
  };
  const drawn = new Map();
  const draw = async (place) => {
    const style = getComputedStyle(document.documentElement);
    const narrow = place.clientWidth < 380;
    const look = themed({ ...config, legend: { ...config.legend, columns: narrow ? 1 : 3 }, axis: { ...config.axis, labelLimit: narrow ? 130 : 170 } }, style);
    drawn.get(place)?.finalize();
    drawn.set(place, await window.vegaEmbed(place, themed(data.plots[place.dataset.plot], style),
      { mode: "vega-lite", renderer: "svg", actions: false, config: look, tooltip: { theme: "custom" } }));
  };
  const places = [...document.querySelectorAll("[data-plot]")];
  const all = () => Promise.all(places.map(draw)).then(() => { document.documentElement.dataset.drawn = "yes"; });
  all();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  document.querySelectorAll("details").forEach((fold) => fold.addEventListener("toggle", () => {
    if (fold.open) fold.querySelectorAll("[data-plot]").forEach(draw);  // what was folded had no width
  }));

  // --- rows --------------------------------------------------------------------------------------------------------
  const shown = (value) => value === null ? "–" : typeof value === "number" ? String(+value.toPrecision(4)) : value;

  const details = ([label, value]) => {
    const items = Array.isArray(value) ? value : [value];
    return element("div", { className: "pair" }, element("dt", { textContent: label }),
      ...items.map((text) => element("dd", { textContent: text })));
  };
  const drawRow = (row, columns) => {
    const [title, facet, values, more, id] = row;
    const summary = element("summary", {},
      element("span", { className: "title", textContent: title }),
      element("span", { className: "facet", textContent: facet }),
      ...values.map((value, number) => element("span", { className: "value" },
        element("span", { className: "label", textContent: columns[number] + " " }), shown(value))));
    const fold = element("details", { className: "row" }, summary);
    fold.addEventListener("toggle", () => {
      if (fold.open && fold.children.length === 1)
        fold.append(element("dl", {}, ...more.map(details), id ? details(["id", id]) : ""));
    });
    return fold;
  };
  const explore = (place) => {
    const { columns, rows, total } = data.explorers[place.dataset.explorer];
    const find = (selector) => place.querySelector(selector);
    const [search, facets, sort, turn, more, list, status] =
      ["input", "[data-facet]", "[data-sort]", "[data-turn]", "[data-more]", ".rows", "[role=status]"].map(find);
    const texts = rows.map((row) => [row[0], row[1], row[4], ...row[3].flat(2)].join(" ").toLowerCase());
    const counts = new Map();
    rows.forEach((row) => counts.set(row[1], (counts.get(row[1]) ?? 0) + 1));
    counts.forEach((count, name) => facets.append(element("option", { value: name, textContent: `${name} (${count})` })));
    columns.forEach((name, number) => sort.append(element("option", { value: number, textContent: name })));
    list.append(element("div", { className: "heads", ariaHidden: "true" }, element("span", {}), element("span", {}),
      ...columns.map((name) => element("span", { textContent: name }))));
    list.style.setProperty("--columns", columns.length);
    let chosen = [], count = 0;

    const show = () => {
      list.append(...chosen.slice(count, count + PAGE).map((number) => drawRow(rows[number], columns)));
      count = Math.min(count + PAGE, chosen.length);
      more.hidden = count === chosen.length;
      const besides = total > rows.length ? `; ${(total - rows.length).toLocaleString("en")} are not in this page` : "";
      status.textContent = `${chosen.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows match, ` +
        `${count.toLocaleString("en")} shown${besides}`;
    };
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      chosen = rows.map((_, number) => number).filter((number) =>
        (!facets.value || rows[number][1] === facets.value) && words.every((word) => texts[number].includes(word)));
      if (sort.value !== "") {
        const sign = turn.getAttribute("aria-pressed") === "true" ? -1 : 1;
        const key = (number) => rows[number][2][sort.value];
        const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
        chosen.sort((a, b) => key(a) === null || key(b) === null
          ? (key(a) === null) - (key(b) === null) : sign * order(key(a), key(b)));
      }
      list.querySelectorAll(".row").forEach((row) => row.remove());
      count = 0;
      show();
    };
    search.addEventListener("input", filter);
    facets.addEventListener("change", filter);
    sort.addEventListener("change", filter);
    turn.addEventListener("click", () => {
      turn.setAttribute("aria-pressed", turn.getAttribute("aria-pressed") !== "true");
      filter();
    });
    more.addEventListener("click", () => {
      const next = count;
      show();
      list.querySelectorAll(".row > summary")[next]?.focus();
    });
    find("form").addEventListener("submit", (event) => event.preventDefault());
    filter();
  };
  document.querySelectorAll("[data-explorer]").forEach(explore);
})();
