// The popup has been at the provider, so it has lost its opener: a channel of the same origin reaches the page.
new BroadcastChannel("login").postMessage("logged in");
window.close();
