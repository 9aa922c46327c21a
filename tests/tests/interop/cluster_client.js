// Clients of protocol version 1 against a cluster. Arguments: a scenario, the file of golden vectors, and
// each member as name=endpoint. What only the test can do it is asked for by a line on standard output,
// and answers by a line on standard input.
const assert = require("node:assert");
const fs = require("node:fs");
const readline = require("node:readline");
const { setTimeout: sleep } = require("node:timers/promises");
const { kv, check } = require("./wire");
const { ZioClient, Proxy, NOT_LEADER, NOT_LEADER_ANYMORE } = require("./zio_client");

const SESSION_EXPIRED = 2;
const RESPONSE_EVICTED = 1;
// Far beyond what a busy machine needs.
const DEADLINE = 240_000;

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const test = async (...question) => {
  process.stdout.write(`${question.join(" ")}\n`);
  return (await lines.next()).value;
};
const leader = () => test("leader");
const follower = () => test("follower");
const metric = async (name, series) => Number(await test("metric", name, series));

const EMPTY = Buffer.alloc(0);
const done = async (answer) => assert.deepEqual(await answer, EMPTY);
const range = (first, last) => Array.from({ length: last - first + 1 }, (_, i) => first + i);

// Whoever follows is told one name, goes there, and is served.
async function redirect(members) {
  const [first, leads] = [await follower(), await leader()];
  const client = await new ZioClient(members, first).create();
  assert.deepEqual(client.rejections, [[NOT_LEADER, leads]]);
  assert.equal(client.at, leads);
  await done(client.command(kv.set("a", "1")));
  assert.equal(await metric(first, "quorate_relays_open"), 0);
  await client.close();
}

// Whoever stays is told the name as well, and then served by way of the follower.
async function relay(members) {
  const [first, leads] = [await follower(), await leader()];
  const options = { stays: true, keepAliveInterval: Infinity };
  const client = await new ZioClient(members, first, options).create();
  assert.deepEqual(client.rejections, [[NOT_LEADER, leads]]);
  assert.match(client.session, /^[0-9a-f-]{36}$/);
  assert.equal(await metric(first, "quorate_relays_open"), 1);
  assert.equal(await metric(leads, "quorate_relayed_connections"), 1);

  await done(client.command(kv.watch("k")));
  await done(client.command(kv.set("k", "v")));
  await client.until(() => client.taken === 1n);
  assert.deepEqual(client.delivered(), [[1n, "k", "v"]]);
  assert.deepEqual(await client.query(kv.get("k")), kv.found("v"));
  assert.deepEqual(await client.command(kv.get("k")), kv.found("v"));
  // More than a frame of HTTP/2 and of ZMTP's short ones.
  const large = "x".repeat(900_000);
  await done(client.command(kv.set("large", large)));
  assert.deepEqual(await client.query(kv.get("large")), kv.found(large));
  // Only heartbeats go over the connection for longer than a missing one is forgiven.
  await sleep(1500);
  await client.keepAlive(7n);
  assert.deepEqual(client.closings, []);
  await client.close();
}

// Commands are on their way while the TCP connection breaks, at the leader and at a follower.
async function drops(members) {
  for (const name of [await leader(), await follower()]) {
    const proxy = await Proxy.to(members[name]);
    const client = await new ZioClient({ [name]: proxy.endpoint }, name, { stays: true }).create();
    const { session } = client;
    await done(client.command(kv.watch(name)));
    let last = 0;
    for (const _ of range(1, 3)) {
      const answers = range(last + 1, last + 30).map((n) => client.command(kv.set(name, `${n}`)));
      last += 30;
      await answers[5];
      const closings = client.closings.length;
      proxy.drop();
      // It does not notice by itself: what it says next is answered so that it does.
      await Promise.all(answers.map(done));
      await client.until(() => client.closings.length > closings && client.state === "open");
      assert.deepEqual(client.closings.at(-1), [NOT_LEADER_ANYMORE, await leader()]);
    }
    await client.reopen();
    assert.equal(client.session, session);
    await done(client.command(kv.set(name, "end")));
    await client.until(() => client.taken === BigInt(last + 1));
    expectOnce(client, name, [...range(1, last).map(String), "end"]);
    await client.close();
    // What it said last goes through the proxy.
    await test("no-session");
    proxy.close();
  }
}

// Each change is told once: no command was lost, none was done twice.
function expectOnce(client, key, values) {
  const delivered = client.delivered();
  assert.deepEqual(delivered.map(([id]) => id), range(1, values.length).map(BigInt));
  const sorted = (texts) => [...texts].sort();
  assert.deepEqual(sorted(delivered.map(([, , value]) => value)), sorted(values));
  assert(delivered.every(([, changed]) => changed === key));
}

// Leaders are killed while one client stays at its node and another follows.
async function leaders(members) {
  const stays = await new ZioClient(members, await follower(), { stays: true }).create();
  const follows = await new ZioClient(members, await follower()).create();
  const clients = [[stays, "stays"], [follows, "follows"]];
  for (const [client, key] of clients) await done(client.command(kv.watch(key)));
  let last = 0;
  for (const _ of range(1, 3)) {
    const numbers = range(last + 1, last + 50);
    last += 50;
    const answers = clients.flatMap(([client, key]) =>
      numbers.map((n) => client.command(kv.set(key, `${n}`))));
    await Promise.any(answers);
    const killed = await test("kill-leader");
    await Promise.race([Promise.all(answers), sleep(3000)]);
    // The node that it stays at may be the one that was killed: it is back, and knows nobody.
    await test("restart", killed);
    await Promise.all(answers.map(done));
  }
  for (const [client, key] of clients) {
    await client.until(() => client.taken === BigInt(last));
    expectOnce(client, key, range(1, last).map(String));
    await client.close();
  }
}

// Ten requests are on their way at most; what is not acknowledged comes again on a new connection.
async function watch(members) {
  const name = await follower();
  const proxy = await Proxy.to(members[name]);
  const way = { [name]: proxy.endpoint };
  const watcher = await new ZioClient(way, name, { stays: true, acknowledges: false }).create();
  await done(watcher.command(kv.watch("k")));
  const writer = await new ZioClient(members, name).create();
  for (const n of range(1, 15)) await done(writer.command(kv.set("k", `${n}`)));
  const ids = () => watcher.requests.map(([id]) => Number(id));
  await watcher.until(() => ids().length === 10);
  // A query is answered after all that was sent before it.
  await watcher.query(kv.get("k"));
  assert.deepEqual(ids(), range(1, 10));
  await watcher.acknowledge(10n);
  await watcher.until(() => ids().length === 15);
  await watcher.acknowledge(13n);
  // It is in the log before what follows it.
  await done(watcher.command(kv.set("other", "1")));

  const again = async () => {
    const closings = watcher.closings.length;
    watcher.requests = [];
    proxy.drop();
    await watcher.until(() => watcher.closings.length > closings && watcher.state === "open");
  };
  await again();
  await watcher.until(() => ids().length === 2);
  assert.deepEqual(watcher.requests, [[14n, "k", "14"], [15n, "k", "15"]]);
  await watcher.acknowledge(15n);
  await done(watcher.command(kv.set("other", "2")));
  await again();
  await done(writer.command(kv.set("k", "16")));
  await watcher.until(() => ids().length === 1);
  assert.deepEqual(watcher.requests, [[16n, "k", "16"]]);
  await watcher.acknowledge(16n);
  await watcher.close();
  await writer.close();
  await test("no-session");
  proxy.close();
}

// What is repeated, what is gone, and who is not known.
async function answers(members) {
  const options = { keepAliveInterval: Infinity };
  const client = await new ZioClient(members, await leader(), options).create();
  const send = (id, lowest, payload) =>
    client.send("ClientRequest", BigInt(id), BigInt(lowest), payload, 0n);
  const next = async () => {
    await client.until(() => client.frames.length > 0);
    return client.frames.shift();
  };
  client.frames = [];
  await send(1, 1, kv.set("a", "1"));
  const first = await next();
  await send(2, 1, kv.get("a"));
  const second = await next();
  await send(1, 1, kv.set("a", "1"));
  assert.deepEqual(await next(), first);
  await send(3, 1, kv.set("a", "3"));
  await next();
  await client.reopen();
  client.frames = [];
  await send(2, 1, kv.get("a"));
  assert.deepEqual(await next(), second, "the answer of then, not of now");
  await send(9, 9, kv.get("a"));
  await next();
  client.nextRequest = 2n;
  await assert.rejects(client.command(kv.set("a", "no")), (reason) => reason === RESPONSE_EVICTED);
  client.nextRequest = 10n;
  assert.deepEqual(await client.command(kv.get("a")), kv.found("3"));

  const { session } = client;
  await client.close();
  await test("no-session");
  for (const gone of [session, "00000000-0000-4000-8000-000000000000", "nobody"]) {
    const late = new ZioClient(members, await leader());
    late.session = gone;
    await late.create();
    assert.deepEqual(late.rejections, [[SESSION_EXPIRED, null]]);
    late.leave();
  }
}

const SCENARIOS = { redirect, relay, drops, leaders, watch, answers };

async function main(scenario, golden, ...members) {
  assert(check(JSON.parse(fs.readFileSync(golden, "utf8"))) > 40);
  setTimeout(() => { throw new Error(`${scenario} takes too long`); }, DEADLINE).unref();
  await SCENARIOS[scenario](Object.fromEntries(members.map((member) => member.split("="))));
  await test("no-session");
  process.exit(0);
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
