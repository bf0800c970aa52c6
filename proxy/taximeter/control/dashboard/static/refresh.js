// The page anew every few seconds, without its loss of place: what is unfolded stays so, and nothing moves while
// somebody types. Without scripts the page says so to the browser itself (meta refresh).
"use strict";

const seconds = Number(document.currentScript.dataset.seconds);

function unfolded(main) {
  return [...main.querySelectorAll("details")].map((each) => each.open);
}

async function renew() {
  const typing = document.activeElement?.matches("main input, main select, main textarea");
  if (document.hidden || typing) return;
  let answer;
  try {
    answer = await fetch(location.href, { headers: { accept: "text/html" } });
  } catch {
    document.body.classList.add("stale"); // the next turn tries again
    return;
  }
  if (answer.redirected) location.reload(); // signed out meanwhile
  document.body.classList.toggle("stale", !answer.ok);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const main = document.getElementById("main");
  const before = unfolded(main);
  main.replaceChildren(...page.getElementById("main").childNodes);
  main.querySelectorAll("details").forEach((each, at) => (each.open = before[at] ?? false));
  main.dataset.renewed = String(Number(main.dataset.renewed ?? 0) + 1);
}

setInterval(renew, seconds * 1000);
