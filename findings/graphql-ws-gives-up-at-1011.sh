#!/usr/bin/env bash
# After which close codes a client of graphql-ws (npm), the usual one for subscriptions of GraphQL, connects again.
#
# Documentation: `retryAttempts`, 5 by default: how many times the client tries to reconnect after an abnormal closure,
# before it reports an error; codes such as 4400 are fatal. Guess: a fault of the server (1011) is what the attempts are
# for, as is a lost connection (1006).
# Seen with the versions below: 1011 is fatal, at once and whatever `retryAttempts` says: the subscription has ended
# with an error. So are 1002, 1008 and 1009. 1011 is what servers close with when the application has raised, and what
# uvicorn and the `websockets` library send to a client that was too slow to answer a ping: those stay away for ever,
# while a killed server is connected to again. `shouldRetry` is not asked about these codes.
# Needs Node and npm in PATH. Run by hand: bash findings/graphql-ws-gives-up-at-1011.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund graphql-ws@6.4.2 ws@8.23.0 graphql@17.1.0 >/dev/null

cat >drive.mjs <<'NODE'
import { createClient } from "graphql-ws";
import WebSocket, { WebSocketServer } from "ws";

const EXPECTED = {
  again: [1000, 1001, "lost", 1012, 1013, 4000],
  never: [1002, 1008, 1009, 1011, 4400, 4500],
};

/** Whether a client connects again after this close. */
async function comesAgain(code) {
  let connections = 0, ended;
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "graphql-transport-ws" });
  await new Promise((resolve) => server.on("listening", resolve));
  const outcome = new Promise((resolve) => (ended = resolve));
  server.on("connection", (socket) => {
    if (++connections === 2) ended(true);
    socket.on("message", (data) => {
      const { type } = JSON.parse(data);
      if (type === "connection_init") socket.send('{"type": "connection_ack"}');
      else if (connections === 1) code === "lost" ? socket.terminate() : socket.close(code);
    });
  });
  const client = createClient({
    url: `ws://127.0.0.1:${server.address().port}`,
    webSocketImpl: WebSocket,
    retryWait: () => new Promise((resolve) => setTimeout(resolve, 100)),
    shouldRetry: () => true,
  });
  client.subscribe({ query: "subscription { a }" }, { next() {}, error: () => ended(false), complete: () => ended(false) });
  setTimeout(ended, 20000, undefined).unref();
  const again = await outcome;
  await client.dispose();
  server.clients.forEach((socket) => socket.terminate());
  server.close();
  return again;
}

let same = true;
for (const [name, codes] of Object.entries(EXPECTED)) {
  for (const code of codes) {
    const again = await comesAgain(code);
    same &&= again === (name === "again");
    console.log(`${code}: ${again ? "connects again" : "gives up"}`);
  }
}
if (!same) console.log("This has changed.");
process.exit(same ? 0 : 1);
NODE
timeout 200 node drive.mjs
