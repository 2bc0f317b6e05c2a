// Brings a report to life: still charts become interactive ones in the page's colours and width.
// Everything here is an addition: without this script the page is complete, only still.
(() => {
  "use strict";

  const PHONE = 560;
  const looks = JSON.parse(document.getElementById("looks").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const drawn = new WeakMap();
  const refuse = () => Promise.reject(new Error("a report makes no requests"));

  /** Vega-Embed's options: no menu, no evaluated code, no requests, our own tooltip style. */
  const options = {
    mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false,
    tooltip: { disableDefaultStyle: true }, loader: { http: refuse, file: refuse },
    // The interpreter's own takes a timestamp for a year: github.com/vega/vega/issues/3632
    expressionFunctions: { datetime: (...parts) => new Date(...parts) },
  };

  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

  /** `base` with the settings of `over` in place of its own, at any depth. */
  function merged(base, over) {
    if (!isObject(base) || !isObject(over)) return over;
    return Object.entries(over).reduce((all, [key, value]) => ({ ...all, [key]: merged(base[key], value) }), base);
  }

  /** The chart's theme in the page's colours; halos behind text vanish into the paper. */
  function toned(config) {
    const look = looks[dark.matches ? "dark" : "light"];
    return merged(merged(config ?? {}, look), { style: { halo: { stroke: colour("--paper") } } });
  }

  /** The same chart, `width` pixels wide; side by side becomes one below the other on a phone. */
  function sized(spec, width) {
    if (spec.hconcat && width < PHONE) {
      const { hconcat, ...rest } = spec;
      return sized({ ...rest, vconcat: hconcat }, width);
    }
    if (spec.vconcat) return { ...spec, vconcat: spec.vconcat.map((part) => sized(part, width)) };
    if (spec.hconcat || spec.concat || spec.facet || spec.repeat) return spec;
    return { ...spec, width };
  }

  /** On a phone, legends go below, and long names and titles make room. */
  function narrowed(config) {
    const legend = { orient: "bottom", columns: 2, titleOrient: "top" };
    return merged(config, { legend, axis: { labelLimit: 110 }, title: { fontSize: 16, lineHeight: 20 } });
  }

  /** One text or several lines, broken again wherever a line is wider than `room`. */
  function wrapped(lines, room, font) {
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = font;
    return [lines].flat().flatMap((line) => String(line).split(" ").reduce((kept, word) => {
      const longer = kept.length ? `${kept.at(-1)} ${word}` : word;
      return !kept.length || pen.measureText(longer).width > room ? [...kept, word] : [...kept.slice(0, -1), longer];
    }, []));
  }

  /** Lines that were broken for another width, put together again: a sentence ends with a stop. */
  function joined(lines) {
    return [lines].flat().reduce((kept, line) => kept.length && !/[.:!?]$/.test(kept.at(-1))
      ? [...kept.slice(0, -1), `${kept.at(-1)} ${line}`] : [...kept, String(line)], []);
  }

  /** The chart's title in as many lines as it needs. */
  function titled(spec, room) {
    const title = isObject(spec.title) ? spec.title : { text: spec.title ?? "" };
    const { font, fontSize = 13, subtitleFontSize = 12 } = { font: spec.config.font ?? "sans-serif", ...spec.config.title };
    const broken = {
      text: wrapped([title.text].flat().join(" "), room, `bold ${fontSize}px ${font}`),
      subtitle: wrapped(joined(title.subtitle ?? []), room, `${subtitleFontSize}px ${font}`),
    };
    return spec.title ? { ...spec, title: { ...title, ...broken } } : spec;
  }

  /** Draw one chart so that, with its axes and labels, it is as wide as its figure. */
  async function draw(figure) {
    const stage = figure.querySelector(".live");
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const room = figure.clientWidth, tones = toned(spec.config);
    const config = room < PHONE ? narrowed(tones) : tones;
    const themed = titled({ ...spec, config }, room);
    const embed = async (width) => {
      drawn.get(figure)?.finalize();
      drawn.set(figure, await vegaEmbed(stage, sized(themed, width), options));
    };
    figure.classList.add("is-live");
    await embed(room);
    const excess = Math.ceil(stage.querySelector("svg").getAttribute("width") - room);
    if (excess !== 0) await embed(Math.max(room - excess, room / 3));
  }

  /** Draw, and keep the still picture where that fails. */
  async function enliven(figure) {
    try { await draw(figure); } catch (error) { figure.classList.remove("is-live"); console.error(error); }
  }

  function enlivenAll() { return Promise.all([...document.querySelectorAll("figure.chart")].map(enliven)); }

  /** Call `action` when the window has had another width for a moment. */
  function onNewWidth(action) {
    let known = innerWidth, timer;
    addEventListener("resize", () => {
      if (innerWidth === known) return;
      known = innerWidth;
      clearTimeout(timer);
      timer = setTimeout(action, 150);
    });
  }

  /** One button for all folds of code; each fold works without it. */
  function addCodeToggle() {
    const folds = [...document.querySelectorAll("details.code")];
    const button = Object.assign(document.createElement("button"), { type: "button", className: "code-toggle" });
    const show = (open) => {
      folds.forEach((fold) => { fold.open = open; });
      button.setAttribute("aria-pressed", String(open));
      button.textContent = open ? "Hide all code" : "Show all code";
    };
    button.addEventListener("click", () => show(button.getAttribute("aria-pressed") !== "true"));
    show(false);
    if (folds.length) document.querySelector(".contents.wide").append(button);
  }

  /** Mark in the contents the section that is being read. */
  function followReading() {
    const links = [...document.querySelectorAll(".contents.wide a")];
    const heads = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));
    const mark = () => {
      const passed = heads.filter((head) => head.getBoundingClientRect().top < innerHeight / 3).length;
      links.forEach((link, i) => i === passed - 1 ? link.setAttribute("aria-current", "location") : link.removeAttribute("aria-current"));
    };
    const crossing = new IntersectionObserver(mark, { rootMargin: "0px 0px -66% 0px" });
    heads.forEach((head) => crossing.observe(head));
  }

  addCodeToggle();
  followReading();
  enlivenAll().then(() => { document.documentElement.dataset.charts = "ready"; });
  dark.addEventListener("change", enlivenAll);
  onNewWidth(enlivenAll);
})();
