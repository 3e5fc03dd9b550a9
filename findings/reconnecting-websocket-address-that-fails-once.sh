#!/usr/bin/env bash
# What a client of the package `reconnecting-websocket` (npm) does when the function that gives it its URL fails once, as
# one does that fetches a token first, from a server that is just being restarted.
#
# Documentation: the URL may be a function, also an asynchronous one; it is called before each attempt, and
# `maxRetries` is without limit. Guess: what it raises counts as a failed attempt; the next one comes after a delay.
# Seen with the versions below: there is never another attempt, neither by itself nor by `reconnect()`. No `error` and no
# `close` comes; only an unhandled rejection, which ends a program in Node and is a line in the console of a browser.
# `partysocket`, which has grown out of it, says `error` and tries again. Let the function catch its own exceptions, and
# give a URL that fails.
# Needs Node and npm in PATH. Run by hand: bash findings/reconnecting-websocket-address-that-fails-once.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund reconnecting-websocket@4.4.0 partysocket@1.3.0 ws@8.23.0 >/dev/null

cat >drive.mjs <<'NODE'
import { WebSocket as Party } from "partysocket";
import Reconnecting from "reconnecting-websocket";
import { WebSocket, WebSocketServer } from "ws";

const EXPECTED = { "reconnecting-websocket": "1 1 0", partysocket: "2 0 1" };
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let unhandled = 0;
process.on("unhandledRejection", () => (unhandled += 1));

/** How often the URL was asked for, and failures that nobody was told of and that came as `error`. */
async function comesAgain(Client) {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  let asked = 0;
  let errors = 0;
  unhandled = 0;
  const address = async () => {
    asked += 1;
    if (asked === 1) throw new Error("no token");
    return `ws://127.0.0.1:${server.address().port}/`;
  };
  const client = new Client(address, [], { WebSocket, minReconnectionDelay: 100, maxReconnectionDelay: 200 });
  client.addEventListener("error", () => (errors += 1));
  await sleep(2000);
  client.reconnect();
  await sleep(1000);
  client.close();
  server.close();
  // partysocket asks once more when it is told to reconnect.
  return `${Math.min(asked, 2)} ${unhandled} ${errors}`;
}

let same = true;
for (const [name, Client] of [["reconnecting-websocket", Reconnecting], ["partysocket", Party]]) {
  const seen = await comesAgain(Client);
  const [asked, lost, told] = seen.split(" ");
  console.log(`${name}: asks ${asked === "1" ? "once" : "again"}; unhandled: ${lost}, told by an error: ${told}`);
  same &&= seen === EXPECTED[name];
}
if (!same) console.log("This has changed.");
process.exit(same ? 0 : 1);
NODE
timeout 60 node drive.mjs
