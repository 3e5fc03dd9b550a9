"use strict";

const SHOWN = 200;
const NOTED = 30;
const byId = (id) => document.getElementById(id);
const ofPage = new URLSearchParams(location.search);
const groups = new Set();
let client = null, watched = "", outage = null, unread = 0;

/** A new element; its text never becomes HTML, for it may be a stranger's. */
function made(name, {text = "", parent, ...attributes} = {}) {
  const element = document.createElement(name);
  element.textContent = text;
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  parent?.append(element);
  return element;
}

function show(id, state, text) {
  byId(id).dataset.state = state;
  if (byId(id).textContent !== text) byId(id).textContent = text; // or it would be read out again
}

function newUuid() {
  // Not crypto.randomUUID(): on plain http it exists for localhost only.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = bytes[6] & 15 | 64;
  bytes[8] = bytes[8] & 63 | 128;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function uuidOfPage() {
  const text = location.hash.slice(1);
  try { return decodeURIComponent(text); } catch { return text; }
}

function urlOfPage() {
  if (!location.protocol.startsWith("http")) return "ws://localhost:8765/";
  return (location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/";
}

// The link to us: whoever opens it gets a new address, and ours as recipient.

function linkToUs() {
  const link = new URL(location.pathname, location.href);
  if (byId("url").value !== urlOfPage()) link.searchParams.set("url", byId("url").value);
  link.searchParams.set("to", byId("uuid").value);
  return link.href;
}

async function copyLink({currentTarget: button}) {
  try {
    await navigator.clipboard.writeText(linkToUs());
  } catch { // on plain http only localhost has a clipboard
    prompt("Copy this link:", linkToUs());
    return;
  }
  byId("said").textContent = "Link copied.";
  const words = button.dataset.words ??= button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = words; byId("said").textContent = ""; }, 2000);
}

// What happened to the connection: one line for an outage, however often it is tried to end it.

function note(text) {
  const line = made("li");
  made("time", {text: new Date().toLocaleTimeString(), parent: line});
  const words = made("span", {text, parent: line});
  byId("notes").prepend(line);
  byId("notes").children[NOTED]?.remove();
  return words;
}

function noteOutage({reason, waitS}) {
  outage ??= {cause: reason, losses: 0, words: note("")};
  outage.losses += 1;
  const last = reason === outage.cause ? "" : `, then ${reason}`;
  const times = outage.losses > 1 ? ` (${outage.losses} times)` : "";
  outage.words.textContent = `${outage.cause}${last}${times}; next try in ${waitS.toFixed(1)} s`;
}

function connect() {
  client?.close();
  show("state", "connecting", "connecting");
  show("peer", "offline", "");
  byId("trouble").hidden = true;
  watched = "";
  outage = null;
  byId("me").textContent = byId("uuid").value;
  byId("link").href = linkToUs();
  const uuid = byId("uuid").value, token = byId("token").value || undefined;
  // Only an address that is proved has a mailbox; the page of the next visit goes on where this one ends.
  const mailbox = token ? NotificationClient.keptIn(localStorage, `position of ${uuid}`) : false;
  client = new NotificationClient(byId("url").value, {uuid, token, mailbox});
  client.addEventListener("connected", ({detail}) => {
    show("state", "connected", "connected");
    note(outage ? "Connected again" : `Connected as ${detail.uuid}`);
    outage = null;
    watch();
  });
  client.addEventListener("disconnected", ({detail}) => {
    show("state", "disconnected", `disconnected: ${detail.reason}`);
    noteOutage(detail);
  });
  client.addEventListener("gone", ({detail}) => {
    show("state", "gone", detail.reason);
    note(detail.reason);
    byId("trouble").hidden = false;
    const isTaken = detail.reason.includes("113");
    byId("why").textContent = isTaken ? "Another tab or program has this address." : `Not connected: ${detail.reason}`;
  });
  client.addEventListener("missing", ({detail}) => note(`Not everything was kept: ${detail.reason}`));
  client.addEventListener("receipt", ({detail: {uuid, outcome}}) => note(`An earlier message to ${uuid}: ${outcome}`));
  client.addEventListener("refused", ({detail}) => note(detail.reason));
  client.addEventListener("message", ({detail: {sender_uuid, message, group}}) => {
    log("received", sender_uuid, typeof message === "string" ? message : JSON.stringify(message), group);
  });
  client.addEventListener("presence", ({detail}) => showPeer(detail.uuid, detail.online));
  client.open().catch(() => {}); // the event "gone" reports it
  for (const group of groups) join(group);
}

// The conversation

/** A message in the list; the result changes the state that stands below it. */
function log(kind, who, text, group) {
  const line = made("li", {"data-kind": kind});
  const about = made("p", {class: "about", parent: line});
  made("span", {class: "who", text: group && kind === "sent" ? `#${group}` : who, parent: about});
  if (kind === "received") {
    if (group !== undefined) button(about, `#${group}`, `Write to the group ${group}`, () => address("group", group));
    button(about, "Reply", `Reply to ${who}`, () => address("address", who));
    know(who);
  }
  made("time", {text: new Date().toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"}), parent: about});
  made("p", {class: "text", text, parent: line});
  const state = made("p", {class: "outcome", parent: line});
  const list = byId("messages"), isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  byId("log").append(line);
  if (byId("log").children.length > SHOWN) byId("log").firstElementChild.remove();
  byId("log").hidden = false;
  byId("empty").hidden = true;
  if (isAtEnd || kind === "sent") list.scrollTop = list.scrollHeight;
  if (kind === "received" && document.hidden) document.title = `(${++unread}) Notification center`;
  return (value, words = value) => {
    state.dataset.state = value;
    state.textContent = words;
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  };
}

function button(parent, text, label, act) {
  made("button", {type: "button", text, "aria-label": label, parent}).addEventListener("click", act);
}

/** Offer an address to whoever begins to write one. */
function know(uuid) {
  const known = [...byId("known").children];
  if (!known.some(({value}) => value === uuid)) made("option", {value: uuid, parent: byId("known")});
}

/** Choose a recipient, and go on with the message. */
function address(kind, to) {
  byId("kind").value = kind;
  byId("recipient").value = to;
  watch();
  byId("message").focus();
}

function showPeer(uuid, online) {
  const state = online ? "online" : "offline";
  if (uuid === byId("recipient").value) show("peer", state, state);
}

async function watch() {
  const uuid = byId("kind").value === "address" ? byId("recipient").value : "";
  if (uuid === watched) return; // after a reconnect the client sees to it
  const before = watched;
  watched = uuid;
  show("peer", "offline", "");
  try {
    if (before) await client.presence([before], {watch: false});
    if (uuid) showPeer(uuid, (await client.presence([uuid], {watch: true})).length > 0);
  } catch (error) {
    note(`${uuid}: ${error.message}`);
  }
}

async function send(kind, recipient, message) {
  const isToGroup = kind === "group";
  const setState = log("sent", recipient, message, isToGroup ? recipient : undefined);
  setState("sending");
  try {
    const options = {ack: "delivered"};
    const sent = await (isToGroup ? client.sendToGroup(recipient, message, options) : client.send(recipient, message, options));
    if (isToGroup && sent.online === 0) {
      setState("accepted", "nobody else is in this group");
      return;
    }
    setState("accepted", sent.stored && !sent.online ? "stored until they come" : undefined);
    const outcome = await sent.outcome;
    setState(outcome, isToGroup ? `${outcome}, ${sent.online} in the group` : outcome);
  } catch (error) {
    setState("refused", error.message);
  }
}

async function join(group) {
  try {
    await client.join(group);
  } catch (error) {
    note(`Group ${group}: ${error.message}`);
    return;
  }
  groups.add(group);
  showGroups();
}

async function leave(group) {
  groups.delete(group);
  showGroups();
  byId("group").focus(); // the button that had it is gone
  await client.leave(group).catch(({message}) => note(`Group ${group}: ${message}`));
}

function showGroups() {
  byId("groups").replaceChildren(...[...groups].map((group) => {
    const chip = made("li");
    button(chip, `#${group}`, `Write to the group ${group}`, () => address("group", group));
    button(chip, "\u00d7", `Leave the group ${group}`, () => leave(group));
    return chip;
  }));
}

function connectAs(uuid) {
  byId("uuid").value = uuid;
  history.replaceState(null, "", "#" + encodeURIComponent(uuid));
  connect();
}

byId("connect").addEventListener("submit", (event) => {
  event.preventDefault();
  connectAs(byId("uuid").value);
});

byId("join").addEventListener("submit", (event) => {
  event.preventDefault();
  join(byId("group").value);
  byId("group").value = "";
});

byId("send").addEventListener("submit", (event) => {
  event.preventDefault();
  watch();
  send(byId("kind").value, byId("recipient").value, byId("message").value);
  byId("message").value = "";
  byId("message").focus();
});

byId("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("send").requestSubmit();
});

byId("recipient").addEventListener("change", watch);
byId("kind").addEventListener("change", watch);
byId("anew").addEventListener("click", () => connectAs(newUuid()));
for (const copy of document.querySelectorAll(".copy")) copy.addEventListener("click", copyLink);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unread = 0;
  document.title = "Notification center";
});
addEventListener("hashchange", () => connectAs(uuidOfPage()));

const isWide = matchMedia("(min-width: 52rem)");
byId("connection").open = isWide.matches;
isWide.addEventListener("change", () => { byId("connection").open = isWide.matches; });

byId("url").value = ofPage.get("url") || urlOfPage();
byId("recipient").value = ofPage.get("to") ?? "";
connectAs(uuidOfPage() || newUuid());
