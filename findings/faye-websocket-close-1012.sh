#!/usr/bin/env bash
# What a client of faye-websocket (npm) tells of a server that closes because it restarts.
#
# Guess: the code that the server has sent, 1012, which is registered for this (IANA, WebSocket Close Code Numbers).
# Seen with the versions below: 1002, a protocol error, which it also answers to the server: it knows the codes of
# RFC 6455 and those from 3000 on, and takes 1012, 1013 and 1014 for none. The reason is the server's own.
# Needs Node and npm in PATH. Run by hand: bash findings/faye-websocket-close-1012.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund faye-websocket@0.11.4 websocket-driver@0.7.5 ws@8.23.0 >/dev/null

cat >drive.mjs <<'NODE'
import faye from "faye-websocket";
import { WebSocket, WebSocketServer } from "ws";

const CODES = [1000, 1001, 1011, 1012, 1013, 1014, 3000, 4000];
const UNKNOWN = [1012, 1013, 1014];

/** What a client tells of a close, and what the server gets as its answer. */
async function closed(Client, code) {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await new Promise((resolve) => server.once("listening", resolve));
  const answered = new Promise((resolve) => {
    server.once("connection", (connection) => {
      connection.on("close", resolve);
      connection.close(code, "a reason");
    });
  });
  const client = new Client(`ws://127.0.0.1:${server.address().port}/`);
  const told = await new Promise((resolve) => (client.onclose = (event) => resolve(`${event.code} ${event.reason}`)));
  const answer = await answered;
  server.close();
  return `${told}, answers ${answer}`;
}

let same = true;
for (const code of CODES) {
  const [first, other] = [await closed(faye.Client, code), await closed(WebSocket, code)];
  console.log(`the server closes with ${code}: faye-websocket tells ${first}; ws tells ${other}`);
  const known = UNKNOWN.includes(code) ? 1002 : code;
  same &&= first === `${known} a reason, answers ${known}` && other === `${code} a reason, answers ${code}`;
}
if (!same) {
  console.error("This has changed.");
  process.exit(1);
}
NODE
timeout 60 node drive.mjs
