// A client of protocol version 1 over a CLIENT of libzmq, that does what zio-raft's two clients do. One
// that follows goes where it is told, as the Scala client; one that stays never moves its socket, as the
// TypeScript client. Both keep what is not answered, and send it again.
const assert = require("node:assert");
const net = require("node:net");
const { Client } = require("zeromq/draft");
const wire = require("./wire");

const NOT_LEADER = 1;
const NOT_LEADER_ANYMORE = 2;
const NOW = 1705680000000n;
const CONNECTION_TIMEOUT = 5000;
const REQUEST_TIMEOUT = 2000;

class ZioClient {
  // members: endpoints by name.
  constructor(members, first, options = {}) {
    const { stays = false, acknowledges = true, keepAliveInterval = 1000 } = options;
    Object.assign(this, { members, stays, acknowledges, keepAliveInterval, at: first });
    this.state = "new";
    this.nonce = 0n;
    this.nextRequest = 0n;
    this.pending = new Map();
    this.queries = new Map();
    this.keepAlives = new Map();
    this.taken = 0n;
    // What came, for whoever looks.
    this.requests = [];
    this.rejections = [];
    this.closings = [];
    this.frames = [];
    this.waiting = [];
    this.openSocket();
    this.timer = setInterval(() => this.tick(), 100);
  }

  openSocket() {
    // A node that did not answer PING would be disconnected after half a second.
    this.socket = new Client({ linger: 5000, heartbeatInterval: 100, heartbeatTimeout: 500 });
    this.socket.connect(this.members[this.at]);
    this.listen(this.socket).catch((error) => { console.error(error); process.exit(1); });
  }

  async listen(socket) {
    for await (const [frame] of socket) {
      if (socket !== this.socket) return;
      const { type, values } = wire.decode(frame);
      this.frames.push(Buffer.from(frame));
      this[`on${type}`](...values);
      this.waiting = this.waiting.filter(({ holds, resolve }) => !holds() || resolve());
    }
  }

  send(type, ...values) {
    this.sending = (this.sending ?? Promise.resolve())
      .then(() => this.socket.send(wire.encode(type, ...values)));
    return this.sending;
  }

  until(holds) {
    return new Promise((resolve) => {
      if (holds()) return resolve();
      this.waiting.push({ holds, resolve });
    });
  }

  ask() {
    this.state = "opening";
    this.askedAt = Date.now();
    this.nonce += 1n;
    if (this.session === undefined) {
      this.send("CreateSession", [["app", "interop"], ["version", "1"]], this.nonce);
    } else {
      this.send("ContinueSession", this.session, this.nonce);
    }
  }

  async create() {
    this.ask();
    await this.until(() => this.state !== "opening");
    return this;
  }

  // Goes to the member of this name, or to the next one if it is not known.
  follow(name) {
    if (this.stays) return;
    const names = Object.keys(this.members);
    const next = name in this.members ? name : names[(names.indexOf(this.at) + 1) % names.length];
    this.socket.disconnect(this.members[this.at]);
    this.socket.connect(this.members[next]);
    this.at = next;
  }

  // Another socket, and the same session.
  async reopen() {
    this.socket.close();
    this.openSocket();
    this.ask();
    await this.until(() => this.state !== "opening");
  }

  tick() {
    const now = Date.now();
    if (this.state === "opening" && now - this.askedAt > CONNECTION_TIMEOUT) {
      this.follow(null);
      this.ask();
    }
    if (this.state !== "open") return;
    if (now - this.aliveAt > this.keepAliveInterval) {
      this.aliveAt = now;
      this.send("KeepAlive", BigInt(now));
    }
    for (const request of [...this.pending.values(), ...this.queries.values()]) {
      if (now - request.sentAt > REQUEST_TIMEOUT) request.send();
    }
  }

  lowest() {
    return [...this.pending.keys()].reduce((a, b) => (a < b ? a : b));
  }

  command(payload) {
    const id = this.nextRequest++;
    return new Promise((resolve, reject) => {
      const send = () => {
        this.pending.get(id).sentAt = Date.now();
        this.send("ClientRequest", id, this.lowest(), payload, NOW);
      };
      this.pending.set(id, { send, resolve, reject, sentAt: 0 });
      if (this.state === "open") send();
    });
  }

  query(payload) {
    const correlation = `query-${this.nextRequest++}`;
    return new Promise((resolve) => {
      const send = () => {
        this.queries.get(correlation).sentAt = Date.now();
        this.send("Query", correlation, payload, NOW);
      };
      this.queries.set(correlation, { send, resolve, sentAt: 0 });
      if (this.state === "open") send();
    });
  }

  keepAlive(timestamp) {
    return new Promise((resolve) => {
      this.keepAlives.set(timestamp, resolve);
      this.send("KeepAlive", timestamp);
    });
  }

  acknowledge(id) { return this.send("ServerRequestAck", id); }

  async close() {
    await this.send("CloseSession", 1);
    this.leave();
  }

  leave() {
    clearInterval(this.timer);
    this.socket.close();
  }

  opened() {
    this.state = "open";
    this.aliveAt = Date.now();
    for (const request of [...this.pending.values(), ...this.queries.values()]) request.send();
  }

  onSessionCreated(session, nonce) {
    if (nonce !== this.nonce) return;
    this.session = session;
    this.taken = 0n;
    this.opened();
  }

  onSessionContinued(nonce) { if (nonce === this.nonce) this.opened(); }

  onSessionRejected(reason, nonce, leader) {
    if (nonce !== this.nonce) return;
    this.rejections.push([reason, leader]);
    if (reason !== NOT_LEADER) return void (this.state = "ended");
    this.follow(leader);
    this.ask();
  }

  onSessionClosed(reason, leader) {
    this.closings.push([reason, leader]);
    if (this.state !== "open") return;
    // Any other reason ends zio-raft's TypeScript client, and all that it has pending.
    assert.equal(reason, NOT_LEADER_ANYMORE, `closed for reason ${reason}`);
    this.follow(leader);
    this.ask();
  }

  onKeepAliveResponse(timestamp) {
    this.keepAlives.get(timestamp)?.();
    this.keepAlives.delete(timestamp);
  }

  onClientResponse(id, payload) {
    this.pending.get(id)?.resolve(payload);
    this.pending.delete(id);
  }

  onRequestError(id, reason) {
    this.pending.get(id)?.reject(reason);
    this.pending.delete(id);
  }

  onQueryResponse(correlation, payload) {
    this.queries.get(correlation)?.resolve(payload);
    this.queries.delete(correlation);
  }

  onServerRequest(id, payload) {
    this.requests.push([id, ...wire.kv.told(payload)]);
    if (!this.acknowledges) return;
    if (id === this.taken + 1n) this.taken = id;
    if (id <= this.taken) this.acknowledge(id);
  }

  // Each request once, in the order of their ids.
  delivered() {
    const byId = new Map(this.requests.map((request) => [request[0], request]));
    return [...byId.values()].sort(([a], [b]) => (a < b ? -1 : 1));
  }
}

// A way to a node that can be cut: the sockets at both ends see their TCP connection break.
class Proxy {
  static async to(endpoint) {
    const proxy = new Proxy();
    const { hostname, port } = new URL(endpoint.replace("tcp:", "http:"));
    proxy.pairs = new Set();
    proxy.server = net.createServer((near) => {
      const far = net.connect(Number(port), hostname);
      const pair = [near, far];
      proxy.pairs.add(pair);
      const end = () => { pair.forEach((socket) => socket.destroy()); proxy.pairs.delete(pair); };
      pair.forEach((socket) => socket.on("error", end).on("close", end));
      near.pipe(far);
      far.pipe(near);
    });
    await new Promise((resolve) => proxy.server.listen(0, "127.0.0.1", resolve));
    proxy.endpoint = `tcp://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  drop() {
    assert(this.pairs.size > 0, "there is a connection to drop");
    for (const pair of this.pairs) pair.forEach((socket) => socket.resetAndDestroy());
  }

  close() {
    this.server.close();
    for (const pair of this.pairs) pair.forEach((socket) => socket.destroy());
  }
}

module.exports = { ZioClient, Proxy, NOT_LEADER, NOT_LEADER_ANYMORE };
