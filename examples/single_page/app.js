// Who is logged in, logging in and out, and calling the API: the session cookie is sent by the browser and is not readable here.

const element = (id) => document.getElementById(id);
let source;

function show(text, loggedIn) {
  element("status").textContent = text;
  for (const [id, visible] of [["login", !loggedIn], ["popup", !loggedIn], ["add", loggedIn], ["logout", loggedIn]]) {
    element(id).hidden = !visible;
  }
}

async function refresh() {
  const response = await fetch("/auth/session", { headers: { accept: "application/json" } });
  if (response.status === 401) {
    source?.close();
    source = undefined;
    element("notes").replaceChildren();
    show("Not logged in", false);
    return;
  }
  if (!response.ok) {
    // 503: the session store is out. The user stays logged in.
    show("The server cannot answer now", true);
    return;
  }
  const state = await response.json();
  show(`Logged in as ${state.subject}, ${state.expires_in} seconds left`, true);
  if (source === undefined) {
    source = new EventSource("/events");
    // The stream ends with the session; after a network fault the session is still there.
    source.addEventListener("error", () => { refresh(); });
  }
}

element("login").addEventListener("click", () => { location.assign("/auth/login?next=/"); });

element("popup").addEventListener("click", () => { window.open("/auth/login?next=/signed-in", "login", "popup"); });
new BroadcastChannel("login").addEventListener("message", () => { refresh(); });

element("add").addEventListener("click", async () => {
  const response = await fetch("/api/notes", { method: "POST", headers: { accept: "application/json" } });
  if (!response.ok) {
    await refresh();
    return;
  }
  element("notes").replaceChildren(...(await response.json()).map((note) => {
    const item = document.createElement("li");
    item.textContent = note;
    return item;
  }));
});

element("logout").addEventListener("click", async () => {
  const response = await fetch("/auth/logout", { method: "POST", headers: { accept: "application/json" } });
  if (!response.ok) {
    await refresh();
    return;
  }
  const { logout_url: url } = await response.json();
  // A navigation, not a fetch: only the provider's own page can end its session in this browser.
  if (url) {
    location.assign(url);
  } else {
    await refresh();
  }
});

await refresh();
