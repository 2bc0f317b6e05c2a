// Additions to pages that are whole without them: live progress, one click that counts once, a calendar, a token from a link.
(() => {
  "use strict";

  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  /** A form that was sent is not sent again by a second click. Coming back to the page makes it new. */
  function sendOnce(form) {
    const button = form.querySelector("button[type=submit]");
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "yes";
      button.setAttribute("aria-disabled", "true");
    });
    addEventListener("pageshow", () => {
      delete form.dataset.sent;
      button.removeAttribute("aria-disabled");
    });
  }

  /** Show what a run tells of itself; when its state is another one, the page is made anew. */
  function follow(section) {
    const bar = section.querySelector("progress"), steps = section.querySelector("[data-steps]");
    const count = section.querySelector("[data-count]"), what = section.querySelector("[data-what]");
    const source = new EventSource(section.dataset.events);
    const note = (text) => {
      if (steps.lastElementChild?.textContent === text) return;
      steps.hidden = false;
      steps.append(element("li", { textContent: text }));
      steps.scrollTop = steps.scrollHeight;
    };
    const hear = (event) => {
      const told = JSON.parse(event.data), progress = told.progress;
      if (told.state && told.state !== section.dataset.state) {
        source.close();
        location.reload();
      } else if (progress) {
        Object.assign(bar, { max: progress.total, value: progress.done });
        count.textContent = `${progress.done} of ${progress.total}`;
        what.textContent = progress.what;
        note(progress.what);
      }
    };
    for (const kind of ["message", "progress", "state", "end"]) source.addEventListener(kind, hear);
  }

  /** A button beside a day opens the browser's calendar; the text field still takes today-7d. */
  function addCalendar(input) {
    const date = element("input", { type: "date", tabIndex: -1 });
    if (!("showPicker" in date)) return;
    date.setAttribute("aria-hidden", "true");
    const label = input.labels[0].firstChild.textContent.trim();
    const button = element("button", { type: "button", className: "second pick", title: "Calendar" });
    button.setAttribute("aria-label", `${label}: choose from a calendar`);
    const picture = new DOMParser().parseFromString(
      '<svg xmlns="http://www.w3.org/2000/svg" class="shape" viewBox="0 0 16 16" aria-hidden="true"><path d="M2 3.5h12V14H2zM2 7h12M5 1.5v3m6-3v3"/></svg>', "image/svg+xml").documentElement;
    button.append(document.importNode(picture, true));
    button.addEventListener("click", () => {
      date.value = /^\d{4}-\d\d-\d\d$/.test(input.value) ? input.value : "";
      date.showPicker();
    });
    date.addEventListener("change", () => { input.value = date.value; });
    const row = element("span", { className: "day-row" });
    input.replaceWith(row);
    row.append(input, date, button);
  }

  /** A list grows when its last field is used. */
  function grow(list) {
    list.addEventListener("input", () => {
      const fields = [...list.querySelectorAll("input")], last = fields.at(-1);
      if (!last.value) return;
      const next = last.cloneNode();
      next.value = "";
      next.setAttribute("aria-label", last.getAttribute("aria-label").replace(/\d+$/, fields.length + 1));
      last.after(next);
    });
  }

  /** A link such as /sign-in#token=… signs in. What stands behind # never leaves the browser by itself. */
  function signIn(form) {
    const token = new URLSearchParams(location.hash.slice(1)).get("token");
    if (!token) return;
    history.replaceState(null, "", location.pathname + location.search);
    form.elements.token.value = token;
    form.submit();
  }

  document.querySelectorAll("form[data-once]").forEach(sendOnce);
  document.querySelectorAll("[data-events]").forEach(follow);
  document.querySelectorAll("input[data-day]").forEach(addCalendar);
  document.querySelectorAll("fieldset.list").forEach(grow);
  document.querySelectorAll("[data-token-form]").forEach(signIn);
  document.querySelectorAll("[data-again]").forEach((it) => setTimeout(() => location.reload(), it.dataset.again * 1000));
  document.getElementById("problems")?.focus();
  document.documentElement.dataset.ready = "yes";
})();
