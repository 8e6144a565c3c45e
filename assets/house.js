// What the report's pages do in a browser: packed files are loaded when somebody needs them,
// figures become charts, tables sort, search and download. Everything lies beside the pages, and
// works from a folder without a server.
(() => {
  "use strict";
  const at = window.houseAt || "./";
  const all = (what, within = document) => [...within.querySelectorAll(what)];
  const make = (tag, attributes = {}, text = "") => {
    const node = document.createElement(tag);
    Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
    if (text) node.textContent = text;
    return node;
  };

  // ---- packed files: gzip as characters of two bytes in a script, since a page from a folder may
  // load scripts and nothing else
  const waiting = {};
  const promised = {};
  window.housePacked = (name, text, size) => waiting[name](text, size);
  const bytesOf = (text, size) => {
    const out = new Uint8Array(size);
    for (let i = 0, o = 0; o < size; i++) {
      let code = text.charCodeAt(i);
      if (code === 0xd7ff) code = text.charCodeAt(++i) ^ 0x4000; // one that cannot stand in a text
      out[o++] = code & 0xff;
      if (o < size) out[o++] = code >> 8;
    }
    return out;
  };
  const unpack = async (text, size) => {
    if (!window.DecompressionStream) throw new Error("this browser is too old to unpack it");
    return new Response(
      new Blob([bytesOf(text, size)]).stream().pipeThrough(new DecompressionStream("gzip")),
    ).text();
  };
  const load = (name) =>
    (promised[name] =
      promised[name] ||
      new Promise((done, failed) => {
        waiting[name] = (text, size) => unpack(text, size).then(done, failed);
        const script = make("script", { src: `${at}packed/${name}.js` });
        script.onerror = () => failed(new Error(`${name} is not there`));
        document.head.append(script);
      }));
  const addressOf = (text) => URL.createObjectURL(new Blob([text], { type: "text/javascript" }));

  // ---- search, of our own on all pages: exact page, glossary, rows of tables, notebooks,
  // reference; a letter may be wrong where nothing fits. The index is packed, and lies in the order
  // of these kinds.
  const fold = (text) =>
    ` ${text
      .toLowerCase()
      .normalize("NFKD")
      .replace(/[\u0300-\u036f]/g, "")
      .replace(/[^\p{L}\p{N}]+/gu, " ")
      .trim()}`;
  const stem = (word) => (word.length > 3 ? word.replace(/s$/, "") : word);
  const searchIndex = () =>
    (promised.index =
      promised.index ||
      load("search").then((text) =>
        JSON.parse(text).map((entry) => {
          const name = fold(
            entry.kind ? entry.section || entry.title : `${entry.title} ${entry.words || ""}`,
          );
          return {
            entry,
            name,
            title: fold(entry.section || entry.title),
            all: fold(`${entry.title} ${entry.section} ${entry.text}`) + name,
          };
        }),
      ));
  const near = (word, other) => {
    // at most one letter more, less, or another
    let i = 0;
    let j = 0;
    let rest = 1;
    while (i < word.length && j < other.length) {
      if (word[i] === other[j]) {
        i++;
        j++;
        continue;
      }
      if (!rest--) return false;
      if (word.length - i > other.length - j) i++;
      else if (word.length - i < other.length - j) j++;
      else {
        i++;
        j++;
      }
    }
    return word.length - i + (other.length - j) <= rest;
  };
  const find = (index, asked, limit) => {
    const whole = fold(asked);
    const words = whole.trim().split(" ").filter(Boolean).map(stem);
    const within = (text) => words.every((word) => text.includes(` ${word}`));
    const close = (text) =>
      words.every(
        (word) => word.length > 3 && text.split(" ").some((other) => near(word, stem(other))),
      );
    let found = index.filter((item) => within(item.all));
    if (!found.length) found = index.filter((item) => close(item.name));
    const exact = (item) => (item.title === whole ? 0 : item.title.startsWith(whole) ? 1 : 2);
    const code = /[_.(]/.test(asked);
    const named = (item) => (within(item.name) || close(item.name) ? 0 : 1);
    const order = (item) => {
      // of pages, terms and rows those first that are called so; a name of the code, written as
      // such, before all
      if (code && exact(item) === 0) return -1;
      return item.entry.kind > 2
        ? 200 + 10 * item.entry.kind + 3 * named(item) + exact(item)
        : 100 * named(item) + 10 * item.entry.kind + exact(item);
    };
    return found
      .map((item) => ({ item, place: order(item) }))
      .sort((one, other) => one.place - other.place)
      .slice(0, limit)
      .map((hit) => hit.item.entry);
  };
  const excerpt = (text, words) => {
    const found = Math.max(0, text.toLowerCase().indexOf(words.toLowerCase().split(/\s+/)[0]));
    const start = Math.max(0, found - 60);
    return (start ? "… " : "") + text.slice(start, start + 180);
  };
  const resultOf = (entry, words) => {
    const link = make("a", { class: "search-result", href: at + entry.href, "data-words": words });
    link.append(make("div", { class: "search-result-title" }, entry.title));
    if (entry.section) link.append(make("div", { class: "search-result-section" }, entry.section));
    link.append(make("div", { class: "search-result-text" }, excerpt(entry.text || "", words)));
    return link;
  };
  const offerSearch = (box) => {
    const input = box.querySelector("input");
    const results = box.querySelector(".smalldocs-search-results");
    const close = () => results.classList.remove("show");
    const show = (nodes) => {
      results.replaceChildren(...nodes);
      results.classList.add("show");
    };
    const search = async () => {
      const words = input.value.trim();
      if (words.length < 2) {
        close();
        return;
      }
      try {
        const found = find(await searchIndex(), words, 20);
        if (words !== input.value.trim()) return; // a later letter has its own answer
        show(
          found.length
            ? found.map((entry) => resultOf(entry, words))
            : [make("div", { class: "search-none" }, "No results")],
        );
      } catch (error) {
        show([make("div", { class: "search-none" }, `The search cannot start: ${error.message}.`)]);
      }
    };
    const move = (step) => {
      const links = all(".search-result", results);
      const before = links.findIndex((link) => link.classList.contains("active"));
      if (!links.length) return;
      const next =
        before < 0 && step < 0 ? links.length - 1 : (before + step + links.length) % links.length;
      links.forEach((link, i) => link.classList.toggle("active", i === next));
      links[next].scrollIntoView({ block: "nearest" });
    };
    const keys = {
      ArrowDown: () => move(1),
      ArrowUp: () => move(-1),
      Escape: () => {
        close();
        input.blur();
      },
      Enter: () => {
        const link =
          results.querySelector(".search-result.active") || results.querySelector(".search-result");
        if (link) link.click();
      },
    };
    input.addEventListener("input", search);
    input.addEventListener("focus", search);
    input.addEventListener("keydown", (event) => {
      if (keys[event.key]) {
        event.preventDefault();
        keys[event.key]();
      }
    });
    document.addEventListener("click", (event) => {
      if (!box.contains(event.target)) close();
    });
    document.addEventListener("keydown", (event) => {
      const typing = document.activeElement.matches("input, textarea, select, [contenteditable]");
      if (
        (event.key === "/" && !typing) ||
        (event.key === "k" && (event.ctrlKey || event.metaKey))
      ) {
        event.preventDefault();
        input.focus();
      }
    });
  };
  all(".smalldocs-search, .house-search:empty").forEach((box) => {
    // a copy, of which smalldocs' own search knows nothing
    const ours = box.cloneNode(true);
    if (!ours.firstElementChild) {
      // one that the page leaves to the script, which alone can search
      ours.className = "smalldocs-search";
      ours.append(make("i", { class: "bi bi-search", "aria-hidden": "true" }));
      ours.append(
        make("input", {
          type: "search",
          class: "form-control form-control-sm",
          placeholder: "Search",
          "aria-label": "Search",
          autocomplete: "off",
        }),
      );
      ours.append(make("div", { class: "smalldocs-search-results dropdown-menu" }));
    }
    box.replaceWith(ours);
    offerSearch(ours);
  });

  // ---- code has a tab for four spaces on its way here
  all("pre").forEach((block) => {
    const walk = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
      if (node.data.includes("\t"))
        node.data = node.data.replace(/^\t+/gm, (tabs) => "    ".repeat(tabs.length));
    }
  });

  // ---- where one is: the list of pages scrolls there, and each heading has its address
  const here = document.querySelector("#quarto-sidebar .active");
  if (here) {
    const side = here.closest("#quarto-sidebar");
    side.scrollTop +=
      here.getBoundingClientRect().top - side.getBoundingClientRect().top - side.clientHeight / 2;
  }
  all("main section[id] > :is(h2, h3, h4)").forEach((head) => {
    if (head.querySelector(".anchorjs-link")) return;
    head.classList.add("anchored");
    head.append(
      make("a", {
        class: "anchorjs-link",
        href: `#${head.parentElement.id}`,
        "aria-label": "Anchor",
      }),
    );
  });

  // ---- a term of the glossary explains itself where it stands
  const tip = make("div", { class: "house-tip", role: "tooltip", id: "house-tip", hidden: "" });
  document.body.append(tip);
  const hideTip = () => {
    tip.hidden = true;
    all("[aria-describedby=house-tip]").forEach((term) => term.removeAttribute("aria-describedby"));
  };
  const showTip = async (term) => {
    const words = await (promised.words = promised.words || load("glossary").then(JSON.parse));
    const told = words[term.hash.slice(1)];
    if (!told || !term.matches(":hover, :focus")) return;
    const box = term.getBoundingClientRect();
    const width = Math.min(320, document.documentElement.clientWidth - 24);
    tip.textContent = told;
    tip.style.width = `${width}px`;
    const most = document.documentElement.clientWidth - width - 12;
    tip.style.left = `${window.scrollX + Math.max(12, Math.min(box.left, most))}px`;
    tip.style.top = `${window.scrollY + box.bottom + 4}px`;
    tip.hidden = false;
    term.setAttribute("aria-describedby", "house-tip");
  };
  all("a.term").forEach((term) => {
    ["pointerenter", "focus"].forEach((kind) =>
      term.addEventListener(kind, () => showTip(term).catch(() => {})),
    );
    ["pointerleave", "blur"].forEach((kind) => term.addEventListener(kind, hideTip));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
  });

  // ---- dark or light: smalldocs looks at the page's colour shortly after a change, on a busy
  // machine too early
  const root = document.documentElement;
  if (document.querySelector('meta[name="smalldocs:offset"]')) {
    const settle = () => {
      const wanted = root.dataset.scheme === "alternate";
      if (root.classList.contains("quarto-dark") !== wanted)
        root.classList.toggle("quarto-dark", wanted);
    };
    new MutationObserver(settle).observe(root, {
      attributes: true,
      attributeFilter: ["class", "data-scheme"],
    });
    settle();
  }

  // ---- charts
  const plotly = () =>
    (promised.plotlyReady =
      promised.plotlyReady ||
      load("plotly").then(
        (text) =>
          new Promise((done, failed) => {
            const script = make("script", { src: addressOf(text) });
            script.onload = () => done(window.Plotly);
            script.onerror = () => failed(new Error("the chart's script did not start"));
            document.head.append(script);
          }),
      ));
  const themed = (layout) => {
    // without a height: the box has one in the stylesheet, and the chart fills the box
    const line = "#e3e6ea";
    const ink = "#2b2f36";
    // of white paper: in the dark the stylesheet turns the chart as it turns the pictures, so that
    // a colour means the same on both
    const clear = "rgba(0,0,0,0)";
    const out = {
      ...structuredClone(layout),
      paper_bgcolor: clear,
      plot_bgcolor: clear,
      modebar: { bgcolor: clear, color: "#5a6270", activecolor: ink },
      font: { family: "inherit", size: 13, color: ink },
      autosize: true,
    };
    Object.keys(out)
      .filter((key) => /^[xy]axis/.test(key))
      .forEach((axis) => Object.assign(out[axis], { gridcolor: line, linecolor: line }));
    (out.updatemenus || []).forEach((menu) =>
      Object.assign(menu, { bgcolor: "#f6f8fa", bordercolor: line, font: { color: ink } }),
    );
    return out;
  };
  const offerChart = (image) => {
    const figure = image.closest("figure");
    const link = image.closest("a") || image;
    const name = image.dataset.chart;
    if (!figure || figure.querySelector(".house-explore")) return;
    const button = make(
      "button",
      { type: "button", class: "house-explore", "aria-pressed": "false" },
      "Explore this chart",
    );
    const place = make("div", {
      class: "house-chart",
      hidden: "",
      role: "group",
      "aria-label": `Interactive chart. ${image.alt}`,
    });
    let drawn = null;
    const draw = async () => {
      button.textContent = "Loading …";
      try {
        const [library, text] = await Promise.all([plotly(), load(name)]);
        drawn = JSON.parse(text);
        place.hidden = false;
        link.hidden = true;
        await library.newPlot(place, structuredClone(drawn.data), themed(drawn.layout), {
          displaylogo: false,
          modeBarButtonsToRemove: ["lasso2d", "select2d"],
        });
        new ResizeObserver(() => {
          if (!place.hidden) library.Plots.resize(place);
        }).observe(place);
        button.textContent = "Show the picture";
        button.setAttribute("aria-pressed", "true");
      } catch (error) {
        button.textContent = `The chart cannot be shown: ${error.message}.`;
      }
    };
    button.addEventListener("click", () => {
      if (!drawn) {
        draw();
        return;
      }
      place.hidden = !place.hidden;
      link.hidden = !place.hidden;
      button.setAttribute("aria-pressed", String(!place.hidden));
      button.textContent = place.hidden ? "Explore this chart" : "Show the picture";
    });
    link.after(place, button);
    window.addEventListener("beforeprint", () => {
      link.hidden = false;
    });
    window.addEventListener("afterprint", () => {
      link.hidden = !place.hidden;
    });
  };
  all("img[data-chart]").forEach(offerChart);

  // ---- tables: sorted and searched by DataTables, which is loaded when a pointer or the keyboard
  // comes near
  const scale = { k: 1e3, M: 1e6, bn: 1e9, tn: 1e12 };
  const numberIn = (text, decimal) => {
    const sign = /^[-−]|\(−/.test(text.trim()) ? -1 : 1;
    const first = (text.match(/\d[\d.,’\u00a0\u202f]*/) || [""])[0];
    const unit = (text.match(/\d[\s\u00a0](k|M|bn|tn)\b/) || [])[1];
    const plain = first
      .replace(decimal === "," ? /[.\u00a0\u202f’]/g : /[,\u00a0\u202f’]/g, "")
      .replace(",", ".");
    return plain === "" ? null : sign * parseFloat(plain) * (scale[unit] || 1);
  };
  const textOf = (cell) => (cell.textContent || "").replace(/\s+/g, " ").trim();
  const library = () =>
    (promised.tables =
      promised.tables ||
      load("tables")
        .then((text) => import(addressOf(text)))
        .then((module) => module.default));
  // A file has plain numbers, a share as a fraction, dates as they sort, and the ends of an
  // interval in columns of their own.
  const ends = /^\((.+?) (?:to|[–-]) (.+?)\)$/;
  const valueOf = (text, decimal) => {
    const n = numberIn(text, decimal);
    return n === null ? "" : String(Number((/%/.test(text) ? n / 100 : n).toPrecision(12)));
  };
  const partsOf = (cell, number, decimal) => {
    const time = cell.querySelector("time[datetime]");
    const copy = cell.cloneNode(true);
    if (time) return [time.getAttribute("datetime"), "", ""];
    const small = copy.querySelector("small");
    const range = number && small && textOf(small).match(ends);
    if (range) small.remove();
    const text = textOf(copy);
    const plain = number ? valueOf(text, decimal) : "";
    return [
      plain || (number && /^[–-]?$/.test(text) ? "" : text),
      ...(range ? [1, 2].map((i) => valueOf(range[i], decimal)) : ["", ""]),
    ];
  };
  const quoted = (text) => {
    const safe = /^[=+@\t\r]|^-(?!\d)/.test(text) ? `'${text}` : text;
    return /[",\n;]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };
  const csvOf = (table) => {
    const decimal = table.dataset.decimal || ".";
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    const number = heads.map((cell) => cell.classList.contains("number"));
    const rows = [...table.tBodies[0].rows].map((row) =>
      [...row.cells].map((cell, i) => partsOf(cell, number[i], decimal)),
    );
    const spread = heads.map((_, i) => rows.some((row) => row[i] && (row[i][1] || row[i][2])));
    const names = heads.flatMap((cell, i) =>
      spread[i] ? ["", ", low", ", high"].map((end) => textOf(cell) + end) : [textOf(cell)],
    );
    return [
      names,
      ...rows.map((row) => row.flatMap((parts, i) => (spread[i] ? parts : [parts[0]]))),
    ]
      .map((row) => row.map(quoted).join(","))
      .join("\r\n");
  };
  const fileNames = {};
  const fileName = (table) => {
    // the page and the section, as in recommendations-top
    const page = (location.pathname.split("/").pop() || "index").replace(/\.html$/, "") || "index";
    const section = (table.closest("section[id]") || {}).id;
    const name = section ? `${page}-${section}` : page;
    const n = (fileNames[name] = (fileNames[name] || 0) + 1);
    return n > 1 ? `${name}-${n}` : name;
  };
  const saveText = (text, name) => {
    const link = make("a", {
      href: URL.createObjectURL(
        new Blob(["\ufeff" + text + "\r\n"], { type: "text/csv;charset=utf-8" }),
      ),
      download: `${name}.csv`,
    });
    document.body.append(link);
    link.click();
    link.remove();
  };
  const save = (table, name) => saveText(csvOf(table), name);
  const ready = (table) =>
    (table.houseReady =
      table.houseReady ||
      library().then((DataTable) => {
        const decimal = table.dataset.decimal || ".";
        const numbers = [...table.tHead.rows[table.tHead.rows.length - 1].cells]
          .map((cell, i) => (cell.classList.contains("number") ? i : -1))
          .filter((i) => i >= 0);
        const render = (data, type) => {
          if (type !== "sort" && type !== "type") return data;
          const n = numberIn(
            String(data)
              .replace(/<small>.*?<\/small>/g, "")
              .replace(/<[^>]*>/g, ""),
            decimal,
          );
          return n === null ? -Infinity : n;
        };
        return new DataTable(table, {
          paging: false,
          info: false,
          order: [],
          autoWidth: false,
          layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
          columnDefs: numbers.length ? [{ targets: numbers, render, type: "num" }] : [],
        });
      }));
  const offerTools = (table) => {
    const box = table.closest(".table-box");
    const rows = table.tBodies[0] ? table.tBodies[0].rows.length : 0;
    const body = table.tBodies[0];
    if (
      !box ||
      !table.tHead ||
      rows < 4 ||
      table.closest(".reference, .actions, .claims, .facts, .example") ||
      all("[colspan], [rowspan]", table).length ||
      (body && all("tr", body).some((row) => row.cells.length !== table.tHead.rows[0].cells.length))
    )
      return;
    const about = table.caption ? table.caption.textContent.trim() : document.title;
    const tools = make("div", { class: "table-tools" });
    const download = make(
      "button",
      { type: "button", class: "table-csv", "aria-label": `Download as CSV: ${about}` },
      "CSV",
    );
    const file = fileName(table);
    download.addEventListener("click", () => save(table, file));
    if (rows >= 8) {
      const search = make("input", {
        type: "search",
        placeholder: "Search this table",
        "aria-label": `Search: ${about}`,
      });
      search.addEventListener("input", () =>
        ready(table).then((data) => data.search(search.value).draw()),
      );
      tools.append(search);
    }
    tools.append(download);
    box.before(tools);
    table.classList.add("house-sorts");
    ["pointerenter", "focusin", "touchstart"].forEach((kind) => {
      box.addEventListener(kind, () => ready(table).catch(() => {}), { once: true, passive: true });
      tools.addEventListener(kind, () => ready(table).catch(() => {}), {
        once: true,
        passive: true,
      });
    });
    all("th", table.tHead).forEach((head, i) => {
      // a click or a key before the library is there is not lost
      head.tabIndex = 0;
      const early = (event) => {
        if (
          table.classList.contains("dataTable") ||
          (event.key && !["Enter", " "].includes(event.key))
        )
          return;
        event.preventDefault();
        event.stopPropagation();
        ready(table).then((data) => data.order([i, "asc"]).draw());
      };
      head.addEventListener("click", early);
      head.addEventListener("keydown", early);
    });
  };
  all(".table-box > table").forEach((table) => {
    // its class n2 says that the second column holds numbers
    [...table.className.matchAll(/\bn(\d+)\b/g)].forEach(([, n]) =>
      all(`tr > :nth-child(${n})`, table).forEach((cell) => cell.classList.add("number")),
    );
    offerTools(table);
  });

  // ---- lists to send: packed as the run wrote them
  all(".house-list").forEach((place) => {
    const name = place.dataset.list;
    const button = make(
      "button",
      {
        type: "button",
        class: "table-csv",
        "aria-label": `Save the list: ${name.replace(/_/g, " ")}`,
      },
      "Save list",
    );
    button.addEventListener("click", () =>
      load(`list-${name}`).then(
        (text) => saveText(text.replace(/\r?\n$/, ""), `campaign-${name.replace(/_/g, "-")}`),
        () => {
          button.replaceWith("not with the site");
        },
      ),
    );
    place.replaceChildren(button);
  });

  // ---- the share held back: the smallest rise that shows with 80% power at 5%, two sides, as
  // retail_ci.export.campaigns computes it
  const needed = (rate, other, control, treated) => {
    const mean = (control * rate + treated * other) / (control + treated);
    return (
      1.959963984540054 * Math.sqrt(mean * (1 - mean) * (1 / control + 1 / treated)) +
      0.8416212335729143 *
        Math.sqrt((rate * (1 - rate)) / control + (other * (1 - other)) / treated)
    );
  };
  const smallest = (rate, control, treated) => {
    if (
      !(rate >= 0 && rate < 1 && treated >= 1 && control * Math.min(rate, 1 - rate) >= 5) ||
      needed(rate, 1, control, treated) > 1 - rate
    )
      return null;
    let low = rate;
    let high = 1;
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2;
      if (middle - rate >= needed(rate, middle, control, treated)) high = middle;
      else low = middle;
    }
    return high - rate;
  };
  all(".house-held").forEach((label) => {
    const input = label.querySelector("input");
    const table = label.parentElement.querySelector("table");
    const marks = [...table.querySelectorAll("[data-reach]")];
    // as the page writes 1000 and 100%, whatever the browser knows of its locale
    const thousand = label.dataset.thousand.slice(1, -3);
    const written = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, thousand);
    const percent = (x) => label.dataset.whole.replace("100", Math.round(100 * x));
    const set = (row, what, text) => {
      row.querySelector(what).textContent = text;
    };
    const show = () => {
      const held = input.value / 100;
      const sums = [0, 0];
      label.querySelector("output").textContent = percent(held);
      marks.forEach((mark, i) => {
        const reach = Number(mark.dataset.reach);
        const rate = mark.dataset.rate === "" ? NaN : Number(mark.dataset.rate);
        const row = mark.closest("tr");
        const all = i === marks.length - 1;
        const control = all ? sums[0] : Math.floor(reach * held + 0.5);
        const treated = all ? sums[1] : reach - control;
        const rise = smallest(rate, control, treated);
        sums[0] += control;
        sums[1] += treated;
        set(row, ".held", written(control));
        set(row, ".sent", written(treated));
        set(
          row,
          ".effect",
          rate >= 0.995
            ? "none: all buy anyway"
            : Number.isNaN(rate)
              ? "unknown: no past share"
              : rise === null
                ? "none: too few customers"
                : `from ${percent(rate)} to ${percent(rate + rise)}`,
        );
      });
    };
    label.hidden = false;
    input.addEventListener("input", show);
  });

  // ---- a table fits its page: its words wrap, then they are small, and where that does not help
  // each row becomes a card; a head is split within a word on a screen alone, before that
  const fits = ["", "wrap", "small", "tight", "tiny", "torn", "cards"];
  const paperFits = fits.filter((fit) => fit !== "torn");
  const narrowFits = ["", "wrap", "cards"];
  const inCards = ".actions, .claims";
  const label = (table) => {
    const heads = table.tHead
      ? [...table.tHead.rows[table.tHead.rows.length - 1].cells].map(textOf)
      : [];
    all("tbody tr", table).forEach((row) => {
      if (row.cells.length === heads.length)
        [...row.cells].forEach((cell, i) => {
          if (heads[i]) cell.dataset.label = heads[i];
        });
    });
  };
  const fitTable = (box, width) => {
    const narrow = (width || document.documentElement.clientWidth) < 576;
    const onPaper = width || window.matchMedia("print").matches;
    const table = box.querySelector("table");
    if (!table || (narrow && box.closest(inCards))) {
      delete box.dataset.fit;
      return;
    }
    if (width) box.style.width = `${width}px`;
    for (const fit of narrow ? narrowFits : onPaper ? paperFits : fits) {
      if (fit) box.dataset.fit = fit;
      else delete box.dataset.fit;
      if (fit === "cards") label(table);
      if (box.scrollWidth <= box.clientWidth + 1) break;
    }
    box.style.width = "";
  };
  const fitAll = (width) =>
    all(".table-box, .sd-table").forEach((box) => {
      if (box.offsetParent) fitTable(box, width);
    });
  all("main .sd-table").forEach((box) => box.classList.add("table-box"));
  const paper = 680; // of A4 within its margins, in pixels
  window.addEventListener("beforeprint", () => fitAll(paper));
  window.addEventListener("afterprint", () => fitAll());
  window.matchMedia("print").addEventListener("change", () => fitAll());

  // ---- what scrolls can be reached by keyboard
  const reach = () =>
    all(".table-box, pre").forEach((box) => {
      if (box.scrollWidth > box.clientWidth + 1) {
        box.tabIndex = 0;
        if (!box.hasAttribute("role")) {
          box.setAttribute("role", "region");
          box.setAttribute("aria-label", box.matches("pre") ? "Code" : "Table");
        }
      }
    });
  fitAll();
  reach();
  window.addEventListener("resize", () => {
    fitAll();
    reach();
  });

  // ---- code gets its colours when somebody opens it
  const strings = [
    String.raw`"""[\s\S]*?"""`,
    String.raw`'''[\s\S]*?'''`,
    String.raw`[rfbRFB]{0,2}"(?:\\.|[^"\\\n])*"`,
    String.raw`[rfbRFB]{0,2}'(?:\\.|[^'\\\n])*'`,
  ].join("|");
  const keywords = [
    "def class return if elif else for while in not and or is import from as with",
    "lambda assert raise try except finally yield pass break continue None True False",
    "await async",
  ]
    .join(" ")
    .replaceAll(" ", "|");
  const words = new RegExp(String.raw`(${strings})|(#[^\n]*)|\b(${keywords})\b`, "g");
  const colour = (code) => {
    const text = code.textContent;
    const parts = [];
    let last = 0;
    text.replace(words, (found, string, comment, keyword, index) => {
      parts.push(
        text.slice(last, index),
        make("span", { class: string ? "st" : comment ? "co" : "kw" }, found),
      );
      last = index + found.length;
      return found;
    });
    parts.push(text.slice(last));
    code.replaceChildren(...parts);
    code.dataset.coloured = "";
  };
  const colourIn = (within) =>
    all(":is(pre.python, details > pre) > code:not([data-coloured])", within).forEach(colour);
  all("main details").forEach((fold) =>
    fold.addEventListener("toggle", () => {
      if (fold.open) {
        colourIn(fold);
        fitAll();
        reach();
      }
    }),
  );
  all("pre.python > code")
    .filter((code) => !code.closest("details"))
    .forEach(colour);
  document.documentElement.dataset.house = "ready";
})();
