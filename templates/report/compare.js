// Lays two charts over each other, with a slider between them. Without it they stand side by side.
(() => {
  "use strict";

  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // In the middle of the slider both are strong; at first the first run is light.

  /** Slider and buttons for one pair of charts. All of them are the browser's own, so keys work. */
  function lay(pair) {
    const [first, second] = pair.querySelectorAll(".side");
    const slider = element("input", { type: "range", min: 0, max: 100, value: 75 });
    const blink = element("button", { type: "button", textContent: "Blink" });
    const stack = element("button", { type: "button", textContent: "Side by side" });
    const show = (share) => {
      slider.value = share;
      slider.setAttribute("aria-valuetext", `${100 - share} percent first run, ${share} percent second run`);
      const stacked = pair.classList.contains("is-stacked");
      first.style.opacity = stacked ? Math.min(1, 2 - share / 50) : "";
      second.style.opacity = stacked ? Math.min(1, share / 50) : "";
    };
    const set = (stacked) => {
      pair.classList.toggle("is-stacked", stacked);
      stack.setAttribute("aria-pressed", String(!stacked));
      slider.disabled = blink.disabled = !stacked;
      show(Number(slider.value));
    };
    slider.addEventListener("input", () => show(Number(slider.value)));
    blink.addEventListener("click", () => show(Number(slider.value) < 100 ? 100 : 0));
    stack.addEventListener("click", () => set(!pair.classList.contains("is-stacked")));
    const caption = (side) => element("p", {}, side.querySelector("figcaption").textContent.trim());
    const key = element("div", { className: "overlay-key" }, caption(first), caption(second));
    const label = element("label", {}, "First run", slider, "Second run");
    pair.prepend(element("div", { className: "overlay-controls" }, key, label, blink, stack));
    set(!("apart" in pair.dataset)); // pictures of different sizes begin side by side
  }

  document.querySelectorAll(".overlay").forEach(lay);
})();
