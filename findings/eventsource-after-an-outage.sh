#!/usr/bin/env bash
# What a client of the package `eventsource` (npm), with which programs in Node read server-sent events, does when a
# proxy answers one of its attempts with 503 or 502, as while the server is restarted.
#
# Guess: it tries again after its `retry`, as after each lost connection; to reconnect is what an EventSource is for.
# Seen with the versions below: version 5 gives up for ever at the first answer that is not 200, as the standard says:
# `readyState` is CLOSED, and only an `error` event with a `code` tells. A connection that is refused or lost is tried
# again. So a client survives a restart without a proxy in front, and not one behind nginx. Version 2, which many
# packages still have, tries again after 500, 502, 503 and 504, so that the upgrade brings this. Look for CLOSED in
# `onerror`, and make a new one.
# Needs Node and npm in PATH. Run by hand: bash findings/eventsource-after-an-outage.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund eventsource@5.1.5 older@npm:eventsource@2.0.2 >/dev/null

cat >drive.mjs <<'NODE'
import http from "node:http";
import { EventSource } from "eventsource";
import Older from "older";

const OUTAGES = ["lost", 500, 502, 503, 504, 429];
const EXPECTED = { "version 5": ["lost"], "version 2": ["lost", 500, 502, 503, 504] };

/** Whether a client that was connected is so again, after one attempt that was answered like this. */
async function comesAgain(Client, outage) {
  let attempts = 0;
  const server = http.createServer((request, response) => {
    attempts += 1;
    if (attempts === 2) {
      if (outage === "lost") request.socket.destroy();
      else response.writeHead(outage).end();
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write("retry: 100\ndata: hello\n\n");
    if (attempts === 1) setTimeout(() => response.end(), 100);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const client = new Client(`http://127.0.0.1:${server.address().port}/`);
  client.onerror = () => {};
  await new Promise((resolve) => {
    const until = Date.now() + 20000;
    const timer = setInterval(() => {
      if (client.readyState !== Client.CLOSED && attempts < 3 && Date.now() < until) return;
      clearInterval(timer);
      resolve();
    }, 50);
  });
  const again = attempts === 3;
  client.close();
  server.closeAllConnections();
  server.close();
  return again;
}

let same = true;
for (const [name, Client] of [["version 5", EventSource], ["version 2", Older]]) {
  const again = [];
  for (const outage of OUTAGES) if (await comesAgain(Client, outage)) again.push(outage);
  same &&= String(again) === String(EXPECTED[name]);
  const never = OUTAGES.filter((outage) => !again.includes(outage));
  console.log(`${name} tries again after: ${again.join(", ")}; gives up after: ${never.join(", ")}`);
}
if (!same) console.log("This has changed.");
process.exit(same ? 0 : 1);
NODE
timeout 200 node drive.mjs
