const client = new NotificationClient("ws://localhost:8765/", {uuid: "page"});
client.addEventListener("message", ({detail}) => console.log(detail.sender_uuid, detail.message));
await client.open();
const sent = await client.send("alice", "hello from a page", {ack: "delivered"});
console.log(await sent.outcome);
