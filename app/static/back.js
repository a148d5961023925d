// Back must not show what a login has protected when that login has ended: browsers may keep the page as it was, and
// then ask nothing of the server. A page that was kept shows nothing, and is loaded again.
addEventListener("pagehide", () => {
  document.documentElement.style.visibility = "hidden";
});
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
