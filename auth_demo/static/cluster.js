// Keeps the page current. Without it every button works all the same, and "look again" does the rest.
"use strict";

const notice = document.querySelector("[data-notice]");
const parts = [...document.querySelectorAll("[data-part]")];
const shown = new Map();

function slot() {
  return document.querySelector("[data-slot]")?.dataset.slot ?? slot.last;
}

async function refresh(part) {
  let address = part.dataset.part;
  if ("withSlot" in part.dataset) {
    slot.last = slot();
    if (slot.last) address += `?slot=${encodeURIComponent(slot.last)}`;
  }
  const answer = await fetch(address, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(5000) });
  if (answer.status !== 200 && answer.status !== 503) return;
  const html = await answer.text();
  // Only what is new: screen readers read a changed log aloud.
  if (html.trimStart().startsWith("<") && shown.get(part) !== html) {
    shown.set(part, html);
    part.innerHTML = html;
  }
}

async function keepCurrent(part) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, Number(part.dataset.every)));
    if (document.hidden) continue;
    // The demo may have been stopped; it may come back.
    await refresh(part).catch(() => {});
  }
}

async function send(form) {
  const body = new URLSearchParams(new FormData(form));
  const answer = await fetch(form.action, { method: "POST", body, headers: { accept: "application/json" } });
  if (answer.ok) return "";
  if (answer.status === 503) return "503: the store is out for a moment. You are still logged in; press again shortly.";
  const details = await answer.json().catch(() => ({}));
  return details.detail ?? details.title ?? `The answer was ${answer.status}.`;
}

for (const form of document.querySelectorAll("form[data-quiet]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const problem = await send(form).catch(() => "The demo does not answer.");
    notice.textContent = problem;
    notice.hidden = problem === "";
    if (problem) notice.scrollIntoView({ block: "nearest" });
    for (const part of parts) refresh(part).catch(() => {});
  });
}

for (const part of parts) keepCurrent(part);
