// A page that is served while its run trains replaces itself by its newer self; what the reader opened stays open.
let tag = null;

function keep(before, after) {
  for (const [selector, state] of [["details", "open"], ["input[type=checkbox]", "checked"]]) {
    const now = after.querySelectorAll(selector);
    before.querySelectorAll(selector).forEach((element, k) => { if (now[k]) now[k][state] = element[state]; });
  }
}

async function refresh() {
  const live = document.querySelector(".live");
  try {
    const answer = await fetch("/", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
    if (answer.status === 200) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (tag !== null || page.querySelector(".live").textContent !== live.textContent) {
        tip.hidden = true;
        for (const part of ["header", "main"]) {
          const before = document.querySelector(part), after = document.adoptNode(page.querySelector(part));
          keep(before, after);
          before.replaceWith(after);
          wire(after);
        }
      }
      tag = answer.headers.get("ETag");
    }
    document.querySelector(".live").classList.remove("gone");
  } catch {
    live.classList.add("gone");
    live.textContent = "The server has ended: this is the last that it showed.";
  }
  setTimeout(refresh, 1000 * document.querySelector(".live").dataset.refresh);
}

setTimeout(refresh, 1000 * document.querySelector(".live").dataset.refresh);
