// Keeps the regions of a page as they are on the server, and ages counting. Without it, a reload shows the same.
"use strict";

let skew = 0; // the server's clock minus this one's, in seconds

function age(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s}s`;
  if (s < 3600) return s < 600 ? `${Math.floor(s / 60)}m${s % 60}s` : `${Math.floor(s / 60)}m`;
  if (s < 86400) return `${Math.floor(s / 3600)}h${Math.floor((s % 3600) / 60)}m`;
  return `${Math.floor(s / 86400)}d${Math.floor((s % 86400) / 3600)}h`;
}

function count() {
  const now = Date.now() / 1000 + skew;
  for (const each of document.querySelectorAll("time[data-age], time[data-until]")) {
    const text = each.dataset.age ? age(now - Number(each.dataset.age)) : age(Number(each.dataset.until) - now);
    if (each.textContent !== text) each.textContent = text;
  }
}

// Makes `old` like `fresh` and touches only what differs, so that focus, selection and open menus stay.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || (old.id || "") !== (fresh.id || "")) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.dataset && old.dataset.keep !== undefined) return;
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  children(old, fresh);
}

function children(old, fresh) {
  const before = [...old.childNodes], after = [...fresh.childNodes];
  after.forEach((node, index) => (index < before.length ? morph(before[index], node) : old.appendChild(node)));
  before.slice(after.length).forEach((node) => node.remove());
}

function tell(state, text) {
  const place = document.getElementById("connection");
  if (!place) return;
  place.className = `connection ${state}`;
  if (place.textContent !== text) place.textContent = text;
}

let source = null;

function listen() {
  if (source || !document.body.hasAttribute("data-live")) return;
  source = new EventSource(document.body.dataset.live + location.search);
  source.addEventListener("open", () => tell("on", "live"));
  source.addEventListener("error", () => {
    tell("lost", "not connected");
    if (source && source.readyState === EventSource.CLOSED) {
      // It was refused: by a session that is over, or by a server that is about to be back.
      source = null;
      setTimeout(() => fetch(location.href, { redirect: "manual" }).then((answer) =>
        answer.type === "opaqueredirect" ? location.reload() : answer.status === 404 ? tell("lost", "it is gone") : listen(),
      listen), 3000);
    }
  });
  source.addEventListener("region", (event) => {
    const { name, html } = JSON.parse(event.data);
    const place = document.querySelector(`[data-region="${CSS.escape(name)}"]`);
    if (!place) return;
    const fresh = new DOMParser().parseFromString(html, "text/html").body;
    children(place, fresh);
    count();
  });
  source.addEventListener("state", (event) => {
    const { now, ...told } = JSON.parse(event.data);
    skew = now - Date.now() / 1000;
    tell("on", "live");
    for (const [name, text] of Object.entries(told)) {
      const place = document.getElementById(name);
      if (place.textContent !== text) place.textContent = text;
      place.hidden = !text;
    }
  });
  source.addEventListener("gone", () => { source.close(); tell("lost", "it is gone"); });
  document.dispatchEvent(new CustomEvent("remit:stream", { detail: source }));
}

function rest() {
  if (source) source.close();
  source = null;
}

// A browser opens six connections to one host at most, so pages that nobody sees give theirs back.
document.addEventListener("visibilitychange", () => (document.hidden ? rest() : listen()));
addEventListener("pagehide", rest);
addEventListener("pageshow", () => { if (!document.hidden) listen(); });

// Menus that ask back close with Escape and when the focus leaves them.
document.addEventListener("keydown", (event) => {
  const open = event.key === "Escape" && document.activeElement && document.activeElement.closest("details.ask[open]");
  if (open) { open.open = false; open.querySelector("summary").focus(); }
});
document.addEventListener("click", (event) => {
  for (const each of document.querySelectorAll("details.ask[open]")) if (!each.contains(event.target)) each.open = false;
});
// Filters take effect at once.
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-instant]");
  if (form) form.requestSubmit();
});

setInterval(count, 1000);
if (!document.hidden) listen();
