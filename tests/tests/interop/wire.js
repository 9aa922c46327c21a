// The messages of protocol version 1, as zio-raft writes them.

const HEADER = Buffer.from("zraft\x01", "latin1");

class Reader {
  constructor(frame) { this.frame = frame; this.at = 0; }

  take(length) {
    if (this.at + length > this.frame.length) throw new Error("a frame ends too early");
    return this.frame.subarray(this.at, this.at += length);
  }
}

const number = (bytes, put, get) => ({
  write: (value) => { const b = Buffer.alloc(bytes); b[put](bytes === 8 ? BigInt(value) : value); return b; },
  read: (reader) => reader.take(bytes)[get](),
});
const u8 = number(1, "writeUInt8", "readUInt8");
const u16 = number(2, "writeUInt16BE", "readUInt16BE");
const i32 = number(4, "writeInt32BE", "readInt32BE");
const i64 = number(8, "writeBigInt64BE", "readBigInt64BE");

const text = (length) => ({
  write: (value) => { const b = Buffer.from(value); return Buffer.concat([length.write(b.length), b]); },
  read: (reader) => reader.take(length.read(reader)).toString(),
});
const payload = {
  write: (value) => Buffer.concat([i32.write(value.length), value]),
  read: (reader) => Buffer.from(reader.take(i32.read(reader))),
};
const capabilities = {
  write: (pairs) => Buffer.concat([u16.write(pairs.length), ...pairs.flat().map(text(u16).write)]),
  read: (reader) => Array.from({ length: u16.read(reader) },
    () => [text(u16).read(reader), text(u16).read(reader)]),
};
// One bit says whether there is a name; it shifts all that follows.
const member = {
  write: (name) => {
    if (name === null) return Buffer.from([0]);
    const raw = text(u16).write(name);
    const out = Buffer.alloc(raw.length + 1);
    out[0] = 0x80;
    raw.forEach((byte, i) => { out[i] |= byte >> 1; out[i + 1] |= (byte & 1) << 7; });
    return out;
  },
  read: (reader) => {
    const rest = reader.take(reader.frame.length - reader.at);
    if (!(rest[0] & 0x80)) return null;
    const raw = Buffer.from(Array.from({ length: rest.length - 1 },
      (_, i) => ((rest[i] << 1) | (rest[i + 1] >> 7)) & 0xff));
    return text(u16).read(new Reader(raw));
  },
};

const CLIENT = {
  CreateSession: [1, capabilities, i64],
  ContinueSession: [2, text(u8), i64],
  KeepAlive: [3, i64],
  ClientRequest: [4, i64, i64, payload, i64],
  ServerRequestAck: [5, i64],
  CloseSession: [6, u8],
  ConnectionClosed: [7],
  Query: [8, text(u16), payload, i64],
};
const SERVER = {
  SessionCreated: [1, text(u8), i64],
  SessionContinued: [2, i64],
  SessionRejected: [3, u8, i64, member],
  SessionClosed: [4, u8, member],
  KeepAliveResponse: [5, i64],
  ClientResponse: [6, i64, payload],
  ServerRequest: [7, i64, payload, i64],
  RequestError: [8, i64, u8],
  QueryResponse: [9, text(u16), payload],
};

function encode(table, type, ...values) {
  const [tag, ...fields] = table[type];
  return Buffer.concat([HEADER, u8.write(tag), ...fields.map((field, i) => field.write(values[i]))]);
}

function decode(table, frame) {
  const reader = new Reader(frame);
  if (!reader.take(6).equals(HEADER)) throw new Error("not version 1");
  const tag = u8.read(reader);
  const [type, [, ...fields]] = Object.entries(table).find(([, [known]]) => known === tag);
  return { type, values: fields.map((field) => field.read(reader)) };
}

// Checks both directions against bytes that zio-raft's own code produced; returns how many.
function check(golden) {
  const same = (table, type, hex) => {
    const { type: found, values } = decode(table, Buffer.from(hex, "hex"));
    if (found !== type || encode(table, type, ...values).toString("hex") !== hex) {
      throw new Error(`${type} ${hex}: ${found} ${values}`);
    }
  };
  for (const [name, hex] of Object.entries(golden.fixtures)) {
    const type = name.replace(/NoLeader$/, "");
    same(type in CLIENT ? CLIENT : SERVER, type, hex);
  }
  for (const { dir, type, args, hex } of golden.extra) {
    const table = dir === "client" ? CLIENT : SERVER;
    same(table, type, hex);
    const values = table[type].slice(1).map((field, i) =>
      field === payload ? Buffer.from(args[i], "hex") : args[i]);
    if (encode(table, type, ...values).toString("hex") !== hex) throw new Error(`${type} ${args}`);
  }
  return Object.keys(golden.fixtures).length + golden.extra.length;
}

const kv = {
  set: (key, value) => Buffer.concat([Buffer.from("S"), text(i32).write(key), text(i32).write(value)]),
  get: (key) => Buffer.concat([Buffer.from("G"), text(i32).write(key)]),
  watch: (key) => Buffer.concat([Buffer.from("W"), text(i32).write(key)]),
  found: (value) => Buffer.concat([Buffer.from([0xff]), text(i32).write(value)]),
  told: (notification) => {
    const reader = new Reader(notification);
    if (reader.take(1).toString() !== "N") throw new Error("no notification");
    return [text(i32).read(reader), text(i32).read(reader)];
  },
};

module.exports = {
  check,
  kv,
  encode: (type, ...values) => encode(CLIENT, type, ...values),
  decode: (frame) => decode(SERVER, frame),
};
