// Shows each result in its place. Without it every form works all the same: the answer is the whole page.
"use strict";

const notice = document.querySelector("[data-notice]");
const outage = document.getElementById("switched");

function say(text) {
  notice.textContent = text;
  notice.hidden = text === "";
  if (text) notice.scrollIntoView({ block: "nearest" });
}

// The answer to a form is the whole page; only the result of this form changes.
async function show(answer, id) {
  const fresh = await partOf(answer, id);
  if (!fresh) throw new Error(String(answer.status));
  const place = document.getElementById(id);
  place.innerHTML = fresh.innerHTML;
  place.toggleAttribute("data-out", fresh.hasAttribute("data-out"));
  watchOutage();
}

async function partOf(answer, id) {
  return new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(id);
}

async function send(form) {
  form.setAttribute("aria-busy", "true");
  say("");
  try {
    const body = new URLSearchParams(new FormData(form));
    const answer = await fetch(form.action, { method: "POST", body, headers: { accept: "text/html" } });
    if (answer.headers.get("content-type") === "application/problem+json") say(`${(await answer.json()).title}.`);
    else await show(answer, form.dataset.shows);
  } catch (error) {
    say(`The demo did not answer: ${error.message}`);
  }
  form.removeAttribute("aria-busy");
}

// An outage ends by itself; then the page says so.
function watchOutage() {
  clearTimeout(watchOutage.timer);
  if (outage.hasAttribute("data-out")) watchOutage.timer = setTimeout(look, 1000);
}

async function look() {
  const answer = await fetch(location.pathname, { headers: { accept: "text/html" } }).catch(() => null);
  const fresh = answer && (await partOf(answer.clone(), outage.id));
  if (fresh && !fresh.hasAttribute("data-out")) await show(answer, outage.id);
  else watchOutage();
}

for (const form of document.querySelectorAll("form[data-shows]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!form.hasAttribute("aria-busy")) send(form);
  });
}
watchOutage();
