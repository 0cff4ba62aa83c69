// Live output of a task: what comes is appended, the oldest lines go, and what is looked for is marked.
"use strict";

(() => {
  const place = document.getElementById("output-lines");
  if (!place) return;
  const MOST_LINES = 5000;
  const search = document.getElementById("output-search"), hits = document.getElementById("output-hits");
  const follow = document.getElementById("output-follow"), wrap = document.getElementById("output-wrap");
  let at = -1, attempt = 0;

  function note(text) {
    const line = document.createElement("div");
    line.className = "n";
    line.textContent = text;
    place.append(line);
  }

  function matches(line, words) {
    return words !== "" && line.textContent.toLowerCase().includes(words);
  }

  function append(lines) {
    const words = search.value.toLowerCase(), parts = document.createDocumentFragment();
    for (const each of lines) {
      if (each.attempt !== undefined && each.attempt !== attempt) {
        attempt = each.attempt;
        const head = document.createElement("div");
        head.className = "n";
        head.textContent = `attempt ${attempt}`;
        parts.append(head);
      }
      if (each.gap) {
        const gap = document.createElement("div");
        gap.className = "n";
        gap.textContent = "more was written than is kept; some is left out here";
        parts.append(gap);
      }
      const line = document.createElement("div"), code = document.createElement("code");
      line.className = `l ${each.stream}`;
      if (each.time) {
        const time = document.createElement("time");
        time.textContent = each.time;
        line.append(time);
      }
      if (each.source) {
        const source = document.createElement("span");
        source.className = `s ${each.source.split("-")[0]}`;
        source.textContent = each.source;
        line.append(source);
      }
      code.append(...new DOMParser().parseFromString(each.html, "text/html").body.childNodes);
      line.append(code);
      if (matches(code, words)) line.classList.add("hit");
      parts.append(line);
    }
    place.append(parts);
    while (place.childElementCount > MOST_LINES) place.firstElementChild.remove();
    if (words) tell();
    if (follow.checked) place.scrollTop = place.scrollHeight;
  }

  function tell() {
    const found = place.querySelectorAll(".hit");
    hits.textContent = search.value === "" ? "" : found.length === 0 ? "nothing found"
      : at >= 0 && at < found.length ? `${at + 1} of ${found.length}` : `${found.length} lines`;
  }

  function look() {
    const words = search.value.toLowerCase();
    at = -1;
    for (const line of place.querySelectorAll(".l")) {
      line.classList.remove("at");
      line.classList.toggle("hit", matches(line.querySelector("code"), words));
    }
    tell();
  }

  function go(step) {
    const found = place.querySelectorAll(".hit");
    if (!found.length) return;
    if (at >= 0 && found[at]) found[at].classList.remove("at");
    at = (at < 0 && step < 0 ? found.length - 1 : at + step + found.length) % found.length;
    found[at].classList.add("at");
    follow.checked = false;
    found[at].scrollIntoView({ block: "nearest" });
    tell();
  }

  search.addEventListener("input", look);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); go(event.shiftKey ? -1 : 1); }
  });
  wrap.addEventListener("change", () => place.classList.toggle("wrap", wrap.checked));
  follow.addEventListener("change", () => { if (follow.checked) place.scrollTop = place.scrollHeight; });
  place.addEventListener("wheel", (event) => { if (event.deltaY < 0) follow.checked = false; }, { passive: true });
  place.addEventListener("keydown", (event) => {
    if (["ArrowUp", "PageUp", "Home"].includes(event.key)) follow.checked = false;
    if (event.key === "End") follow.checked = true;
  });

  document.addEventListener("remit:stream", (event) => {
    event.detail.addEventListener("output", (packet) => {
      const told = JSON.parse(packet.data);
      if (told.reset) { place.replaceChildren(); attempt = 0; at = -1; }
      if (told.note) note(told.note);
      if (told.lines) append(told.lines);
      if (told.end && !place.querySelector(".l")) note("nothing was written");
    });
    event.detail.addEventListener("broken", (packet) => note(JSON.parse(packet.data)));
  });
})();
