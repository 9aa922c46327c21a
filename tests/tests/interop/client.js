// A whole session of protocol version 1 over a CLIENT of libzmq. Argument: the node's endpoint.
const assert = require("node:assert");
const { setTimeout: sleep } = require("node:timers/promises");
const { Client } = require("zeromq/draft");

const NOW = 1705680000000n;
const NONCE = 42n;

const i64 = (value) => { const b = Buffer.alloc(8); b.writeBigInt64BE(BigInt(value)); return b; };
const i32 = (value) => { const b = Buffer.alloc(4); b.writeInt32BE(value); return b; };
const u16 = (value) => { const b = Buffer.alloc(2); b.writeUInt16BE(value); return b; };
const short = (value) => Buffer.concat([u16(value.length), Buffer.from(value)]);
const long = (value) => Buffer.concat([i32(value.length), Buffer.from(value)]);
const setKey = (key, value) => Buffer.concat([Buffer.from("S"), long(key), long(value)]);

async function main(endpoint) {
  const socket = new Client({ receiveTimeout: 60000, linger: 5000 });
  // A node that did not answer PING would be disconnected after half a second.
  socket.heartbeatInterval = 100;
  socket.heartbeatTimeout = 500;
  socket.connect(endpoint);

  const send = (tag, ...parts) =>
    socket.send(Buffer.concat([Buffer.from("zraft\x01"), Buffer.from([tag]), ...parts]));
  const receive = async (...tags) => {
    const [frame] = await socket.receive();
    assert.equal(frame.subarray(0, 6).toString("latin1"), "zraft\x01");
    assert(tags.includes(frame[6]), `tag ${frame[6]}, expected ${tags}`);
    return { tag: frame[6], body: frame.subarray(7) };
  };
  const command = (request, payload) =>
    send(4, i64(request), i64(request), long(payload), i64(NOW));
  const expectResponse = async (request) =>
    assert.deepEqual((await receive(6)).body, Buffer.concat([i64(request), i32(0)]));
  const keepAlive = async (timestamp) => {
    await send(3, i64(timestamp));
    assert.deepEqual((await receive(5)).body, i64(timestamp));
  };

  await send(1, u16(1), short("app"), short("interop"), i64(NONCE));
  const created = (await receive(1)).body;
  assert.equal(created[0], 36);
  assert.deepEqual(created.subarray(37), i64(NONCE));
  await keepAlive(NOW);

  await command(1, setKey("a", "1"));
  await expectResponse(1);
  await command(2, Buffer.concat([Buffer.from("W"), long("k")]));
  await expectResponse(2);
  await command(3, setKey("k", "v"));
  const notification = Buffer.concat([Buffer.from("N"), long("k"), long("v")]);
  const told = {};
  while (Object.keys(told).length < 2) {
    const { tag, body } = await receive(6, 7);
    told[tag] = body;
  }
  assert.deepEqual(told[6], Buffer.concat([i64(3), i32(0)]));
  assert.deepEqual(told[7].subarray(0, -8), Buffer.concat([i64(1), long(notification)]));
  await send(5, i64(1));

  const query = Buffer.concat([Buffer.from("G"), long("a")]);
  await send(8, short("first"), long(query), i64(NOW));
  const answer = Buffer.concat([Buffer.from([0xff]), long("1")]);
  assert.deepEqual((await receive(9)).body, Buffer.concat([short("first"), long(answer)]));

  // Only heartbeats go over the connection for longer than a missing one is forgiven.
  await sleep(1500);
  await keepAlive(NOW + 1n);
  await send(6, Buffer.from([1]));
  socket.close();
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
