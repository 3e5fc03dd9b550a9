// The same job on Node's `ws`: node node.js PORT, with `ws` on NODE_PATH.
const { randomUUID } = require("node:crypto");
const { WebSocketServer } = require("ws");

const connections = new Map();

new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: false, backlog: 2048 })
  .on("connection", (socket) => {
    const keys = [randomUUID()];
    connections.set(keys[0], socket);
    socket.send(`Welcome! Your temporary UUID is ${keys[0]}`);
    socket.on("message", (data) => {
      const text = data.toString();
      const { recipient_uuid: recipient, message } = JSON.parse(text);
      if (message === "connected") {
        keys.push(recipient);
        connections.set(recipient, socket);
      } else {
        connections.get(recipient)?.send(text);
      }
    });
    socket.on("close", () => keys.forEach((key) => connections.delete(key)));
  });
