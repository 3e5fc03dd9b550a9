#!/usr/bin/env bash
# What the package `websocket` (npm) does with an empty text message.
#
# Guess: it arrives, as an empty binary one does: RFC 6455 allows both (section 5.6).
# Seen with the versions below: the client with the interface of browsers (`w3cwebsocket`) never tells it, while an empty
# binary message is told, and the server tells both. Who sends empty texts, as a sign of life, or as an empty line of a
# log, loses them there.
# Needs Node and npm in PATH. Run by hand: bash findings/websocket-npm-empty-text.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund websocket@1.0.35 ws@8.23.0 >/dev/null

cat >drive.mjs <<'NODE'
import http from "node:http";
import websocket from "websocket";
import { WebSocket, WebSocketServer } from "ws";

const MESSAGES = ["first", "", Buffer.alloc(0), "last"];
const text = (data) => (typeof data === "string" ? `text '${data}'` : "empty binary");

/** What a client gets of these messages. */
async function toClient(Client) {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await new Promise((resolve) => server.once("listening", resolve));
  server.on("connection", (connection) => MESSAGES.forEach((message) => connection.send(message)));
  const client = new Client(`ws://127.0.0.1:${server.address().port}/`);
  const got = [];
  await new Promise((resolve) => {
    client.onmessage = ({ data }) => {
      got.push(text(data));
      if (data === "last") resolve();
    };
  });
  client.close();
  server.close();
  return got.join(", ");
}

/** What a server of `websocket` gets of them. */
async function toServer() {
  const listener = http.createServer();
  const server = new websocket.server({ httpServer: listener, autoAcceptConnections: true });
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const got = [];
  const whole = new Promise((resolve) => {
    server.on("connect", (connection) => {
      connection.on("message", (message) => {
        got.push(text(message.type === "utf8" ? message.utf8Data : message.binaryData));
        if (message.utf8Data === "last") resolve();
      });
    });
  });
  const client = new WebSocket(`ws://127.0.0.1:${listener.address().port}/`);
  client.onopen = () => MESSAGES.forEach((message) => client.send(message));
  await whole;
  client.close();
  server.shutDown();
  listener.close();
  return got.join(", ");
}

const whole = MESSAGES.map(text).join(", ");
const lost = whole.replace("text '', ", "");
const seen = [await toClient(websocket.w3cwebsocket), await toServer(), await toClient(WebSocket)];
console.log(`sent: ${whole}`);
console.log(`a client of websocket gets: ${seen[0]}`);
console.log(`a server of websocket gets: ${seen[1]}`);
console.log(`a client of ws gets: ${seen[2]}`);
if (`${seen}` !== `${[lost, whole, whole]}`) {
  console.error("This has changed.");
  process.exit(1);
}
NODE
timeout 60 node drive.mjs
