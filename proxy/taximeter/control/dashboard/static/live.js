// Live calls: each record of /usage/live becomes a row of the table. The server's own table is there without it.
"use strict";

const table = document.getElementById("live");
const body = table.tBodies[0];
const most = Number(table.dataset.most);
const clock = new Intl.DateTimeFormat("en-GB", {
  timeZone: table.dataset.tz, day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit",
});
const known = (value, shown) => (value === null || value === undefined ? "—" : shown(value));
const count = (number) => number.toLocaleString("en-US");
// As core/visible.py: what could turn the reading order, or is not seen at all, is spelled out.
const NAMED = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
const hex = (mark, code, digits) => `\\${mark}${code.toString(16).padStart(digits, "0")}`;
const spelled = (odd) => {
  const code = odd.codePointAt(0);
  return NAMED[odd] ?? (code < 0x100 ? hex("x", code, 2) : code < 0x10000 ? hex("u", code, 4) : hex("U", code, 8));
};
const visible = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, spelled);
const took = (ms) => count(Math.round(ms));
const places = Number(table.dataset.places);

function money(usd) {
  const [size, sign] = [Math.abs(usd), usd < 0 ? "-" : ""];
  if (size > 0 && size < 10 ** -places) return `${sign}<$${(10 ** -places).toFixed(places)}`;
  return `${sign}$${size.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places })}`;
}

function row(record) {
  const made = document.getElementById("row").content.cloneNode(true);
  const cell = (name) => made.querySelector(`[data-is="${name}"]`);
  cell("link").href = `/dashboard/requests/${encodeURIComponent(record.request_id)}`;
  cell("ended").textContent = clock.format(new Date(record.ended_at)).replace(",", "");
  cell("ended").dateTime = record.ended_at;
  cell("workspace").textContent = record.workspace;
  cell("workspace").href = `/dashboard/workspaces/${encodeURIComponent(record.workspace)}`;
  cell("whose").textContent = record.workspace;
  cell("task").textContent = record.task ?? "";
  if (record.track) {
    cell("track").textContent = record.track;
    cell("track").href = `/dashboard/workspaces/${encodeURIComponent(record.workspace)}/tracks/${encodeURIComponent(record.track)}`;
  }
  cell("model").textContent = visible(record.response_model ?? record.request_model ?? "unknown");
  const out = record.output_tokens !== null || record.operation === "llm" ? ` → ${known(record.output_tokens, count)}` : "";
  const searches = record.input_tokens === null && record.search_units !== null;
  cell("tokens").textContent = searches
    ? `${count(record.search_units)} search unit${record.search_units === 1 ? "" : "s"}`
    : known(record.input_tokens, count) + out;
  cell("cost").textContent = known(record.cost_usd, money);
  cell("took").textContent = known(record.duration_ms, took);
  cell("code").textContent = record.error_code ?? "";
  for (const tag of [cell("outcome"), cell("ended-as")]) {
    tag.textContent = record.outcome;
    tag.classList.add({ ok: "good", client_left: "soft", refused: "soft" }[record.outcome] ?? "bad");
  }
  return made;
}

function tell(on, text) {
  document.getElementById("light").classList.toggle("on", on);
  document.getElementById("state").textContent = text;
}

tell(false, "Connecting …");
const source = new EventSource(table.dataset.source);
source.onopen = () => tell(true, "Live");
source.onerror = () => tell(false, "Not connected; trying again …");
source.addEventListener("record", (event) => {
  body.prepend(row(JSON.parse(event.data)));
  document.getElementById("quiet").hidden = true;
  while (body.rows.length > most) body.lastElementChild.remove();
});
source.addEventListener("missed", (event) => {
  tell(true, `Live; ${count(JSON.parse(event.data).records)} calls came faster than they could be shown`);
});
source.addEventListener("ended", (event) => {
  source.close(); // else the browser would ask again and again
  tell(false, `Ended: ${JSON.parse(event.data).reason}`);
});
