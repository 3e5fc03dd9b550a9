// The same job on socket.io, over its Redis adapter: node node_rooms.js PORT SOCKET, with the packages on NODE_PATH.
// A client joins the room of its address, and what is said to an address goes to its room on all nodes.
const { createAdapter } = require("@socket.io/redis-adapter");
const { createServer } = require("node:http");
const { createClient } = require("redis");
const { Server } = require("socket.io");

async function main(port, path) {
  const publishes = createClient({ socket: { path } });
  const subscribes = publishes.duplicate();
  await Promise.all([publishes.connect(), subscribes.connect()]);
  // Answers whoever asks whether it is up, and leaves the rest to socket.io.
  const server = createServer((_, response) => response.end());
  const io = new Server(server, { adapter: createAdapter(publishes, subscribes), transports: ["websocket"] });
  io.on("connection", (socket) => {
    socket.on("route", (recipient, message) => {
      if (message === "connected") {
        socket.join(recipient);
      } else {
        io.to(recipient).emit("route", recipient, message);
      }
    });
  });
  server.listen(port, "127.0.0.1", 2048);
}

main(Number(process.argv[2]), process.argv[3]);
