// node sqlrooms.mjs URL [TOKEN]: what @sqlrooms/duckdb's WebSocket connector, unmodified, needs.
//
// With TOKEN the server must ask for it. Tables are made under names that begin with clients_.

import assert from 'node:assert/strict';
import {createWebSocketDuckDbConnector} from '@sqlrooms/duckdb/dist/connectors/WebSocketDuckDbConnector.js';
import * as arrow from 'apache-arrow';
import {fact, failure, finish, sockets, until} from './facts.mjs';

const [wsUrl, authToken] = process.argv.slice(2);
const SLOW = 'select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = 7';
const statuses = [];
const heard = [];
const connect = (options = {}) => createWebSocketDuckDbConnector({wsUrl, authToken, ...options});
const connector = connect({
  subscribeChannels: ['changes'],
  onNotification: (payload) => heard.push(payload),
  onConnectionStatusChange: (status) => statuses.push(status),
});
const rows = async (sql) => (await connector.query(sql)).toArray().map((row) => row.toJSON());

await fact('initialise', async () => {
  await connector.initialize();
  assert.deepEqual(statuses, ['connecting', 'connected']);
});

if (authToken) {
  await fact('a wrong token is refused, and its socket closed by the server', async () => {
    const stranger = connect({authToken: `${authToken}?`});
    assert.match(await failure(stranger.initialize()), /unauthorized/i);
    const socket = new WebSocket(wsUrl); // the connector closes its own socket; this one waits
    socket.on('open', () => socket.send(JSON.stringify({type: 'auth', token: 'wrong'})));
    await until(() => socket.readyState === WebSocket.CLOSED);
    assert.equal(socket.received[0].type, 'error');
  });

  await fact('without a token nothing is answered, though others of this address have one', async () => {
    const stranger = connect({authToken: undefined});
    assert.match(await failure(stranger.query('select 1')), /unauthorized/i);
    const upload = connect({authToken: undefined});
    const table = arrow.tableFromArrays({n: [1]});
    assert.match(await failure(upload.loadArrow(table, 'clients_stolen')), /unauthorized/i);
    assert.match(await failure(connector.query('from clients_stolen')), /does not exist/);
  });
}

await fact('query', async () => {
  const found = await rows("select 9007199254740993 as big, 'ä€😀' as text, null::int as nothing");
  assert.deepEqual(found, [{big: 9007199254740993n, text: 'ä€😀', nothing: null}]);
});

await fact('queryJson', async () => {
  const found = [...(await connector.queryJson('select range as n from range(3)'))];
  assert.deepEqual(found.map(({n}) => Number(n)), [0, 1, 2]);
});

await fact('an empty result', async () => {
  assert.equal((await connector.query('select 1 as x where false')).numRows, 0);
});

await fact('statements without a result', async () => {
  await connector.execute('create or replace table clients_numbers (n int)');
  assert.equal((await connector.execute('insert into clients_numbers values (1), (2)')).numRows, 0);
  assert.deepEqual(await rows('select sum(n)::int as total from clients_numbers'), [{total: 3}]);
});

await fact('the text of an error is the database\'s', async () => {
  assert.match(await failure(connector.query('selec 1')), /^Parser Error: .*selec/);
  assert.match(await failure(connector.query('from clients_nowhere')), /^Catalog Error: .*nowhere/);
  assert.deepEqual(await rows('select 1 as n'), [{n: 1}]);
});

await fact('loadArrow', async () => {
  const table = new arrow.Table({
    n: arrow.vectorFromArray([1, 2, 3], new arrow.Int32()),
    big: arrow.vectorFromArray([2n ** 62n, -1n, null], new arrow.Int64()),
    text: arrow.vectorFromArray(['a', null, 'ä€😀'], new arrow.Utf8()),
    word: arrow.vectorFromArray(['same', 'same', 'other']), // apache-arrow makes a dictionary of it
  });
  await connector.loadArrow(table, 'clients_uploaded');
  await connector.loadArrow(arrow.tableToIPC(table, 'stream'), 'main.clients_uploaded'); // replaces
  assert.deepEqual(await rows('from clients_uploaded order by n'), [
    {n: 1, big: 2n ** 62n, text: 'a', word: 'same'},
    {n: 2, big: -1n, text: null, word: 'same'},
    {n: 3, big: null, text: 'ä€😀', word: 'other'},
  ]);
});

await fact('an upload that cannot be is refused', async () => {
  const table = arrow.tableFromArrays({n: [1]});
  await failure(connector.loadArrow(table, 'clients uploaded; drop table clients_uploaded'));
  await failure(connector.loadArrow(new Uint8Array([1, 2, 3]), 'clients_uploaded'));
  assert.deepEqual(await rows('select count(*)::int as n from clients_uploaded'), [{n: 3}]);
});

await fact('loadObjects', async () => {
  const objects = [{n: 1, word: "it's"}, {n: 2, word: null}];
  await connector.loadObjects(objects, 'clients_objects', {replace: true});
  assert.deepEqual(await rows('from clients_objects order by n'), objects);
});

await fact('a large result is whole', async () => {
  const table = await connector.query("select range as n, 'row ' || range as t from range(2000000)");
  assert.equal(table.numRows, 2000000);
  const numbers = table.getChild('n');
  let total = 0n;
  for (const n of numbers) total += n;
  assert.equal(total, (2000000n * 1999999n) / 2n);
  assert.equal(table.get(1999999).t, 'row 1999999');
});

await fact('an error in the middle of a large result rejects its query', async () => {
  const sql = "select case when range = 1900000 then error('late')::bigint else range end as n from range(2000000)";
  assert.match(await failure(connector.query(sql)), /late|Arrow|message|metadata|Unexpected/i);
  assert.deepEqual(await rows('select 1 as n'), [{n: 1}]);
});

await fact('200 in flight', async () => {
  const all = Array.from({length: 200}, (_, n) => rows(`select ${n} as n, repeat('x', ${n}) as text`));
  for (const [n, found] of (await Promise.all(all)).entries()) {
    assert.deepEqual(found, [{n, text: 'x'.repeat(n)}]);
  }
});

await fact('what is asked for again and again is what it is by now', async () => {
  const expected = Array.from({length: 10}, (_, n) => ({n, text: n === 3 ? null : `row ${n}`}));
  await connector.execute("create or replace table clients_hot as select range::int as n, case when range <> 3 then 'row ' || range end as text from range(10)");
  const sql = 'from clients_hot order by n';
  for (let time = 1; time <= 100; time++) assert.deepEqual(await rows(sql), expected);
  for (const found of await Promise.all(Array.from({length: 200}, () => rows(sql)))) assert.deepEqual(found, expected);
  for (const json of await Promise.all(Array.from({length: 100}, () => connector.queryJson(sql)))) assert.deepEqual([...json].map(({n, text}) => ({n, text})), expected);
  for (let n = 10; n < 60; n++) {
    await connector.execute(`insert into clients_hot values (${n}, null)`);
    expected.push({n, text: null});
    assert.deepEqual(await rows(sql), expected);
  }
});

await fact('a notification reaches the others, once each', async () => {
  const others = [];
  const other = connect({subscribeChannels: ['changes'], onNotification: (each) => others.push(each)});
  await other.initialize();
  await other.query('select 1'); // its subscriptions are older than this answer
  await connector.query('select 1');
  const third = connect();
  await third.initialize();
  const sender = sockets.at(-1); // the connector itself only listens
  for (const payload of [{op: 'update', table: 'clients_numbers'}, 'last']) {
    sender.send(JSON.stringify({type: 'notify', channel: 'changes', payload}));
  }
  await until(() => heard.includes('last') && others.includes('last'));
  assert.deepEqual(heard, [{op: 'update', table: 'clients_numbers'}, 'last']);
  assert.deepEqual(others, heard);
  await until(() => sender.received.filter(({type}) => type === 'notifyAck').length === 2);
  await other.destroy();
  await third.destroy();
});

await fact('a lost connection rejects its queries, and reconnect mends it', async () => {
  const socket = sockets[0];
  const outcome = failure(connector.query(SLOW).result);
  await until(() => socket.sent.at(-1)?.type === 'arrow');
  socket.terminate();
  assert.match(await outcome, /closed|error/i);
  assert.equal(connector.connectionStatus, 'disconnected');
  await connector.reconnect();
  assert.equal(connector.connectionStatus, 'connected');
  assert.deepEqual(await rows('select sum(n)::int as total from clients_numbers'), [{total: 3}]);
});

await fact('cancel rejects the query soon', async () => {
  const handle = connector.query(SLOW);
  const outcome = failure(handle.result);
  await new Promise((resolve) => setTimeout(resolve, 100)); // it runs by now, or cancel comes early
  const began = performance.now();
  await handle.cancel();
  assert.match(await outcome, /cancelled/);
  assert.ok(performance.now() - began < 1000);
});

await fact('a cancelled query has an acknowledgement and an outcome', () => cancelled(0, 100));
await fact('so has one whose cancel comes right behind it', () => cancelled(0, 0));
await fact('and one of several', () => cancelled(4, 50));

/** Cancels a query, with *others* as slow, after *milliseconds*; expects both answers to it. */
async function cancelled(others, milliseconds) {
  const socket = sockets.at(-1); // the connector's, since it has reconnected
  const handles = Array.from({length: others + 1}, () => connector.query(SLOW));
  const outcomes = handles.map((handle) => failure(handle.result));
  await until(() => socket.sent.at(-1)?.type === 'arrow');
  if (milliseconds) await new Promise((resolve) => setTimeout(resolve, milliseconds));
  const {queryId} = socket.sent.at(-1 - others);
  const answers = () => socket.received.filter((message) => message.queryId === queryId);
  await handles[0].cancel();
  await until(() => answers().length === 2);
  const [ack, error] = answers().sort((a, b) => a.type.localeCompare(b.type));
  assert.equal(ack.cancelled, true);
  assert.equal(error.type, 'error');
  const asked = socket.sent.findLast((message) => message.type === 'cancel').at;
  assert.ok(Math.max(ack.at, error.at) - asked < 1000, `${error.at - asked} ms`);
  for (const handle of handles.slice(1)) await handle.cancel();
  await Promise.all(outcomes);
}

await fact('quick queries pass slow ones, of their own client and of others', async () => {
  const few = Array.from({length: 4}, () => connector.query(SLOW));
  const outcomes = few.map((handle) => failure(handle.result));
  assert.deepEqual(await rows('select 1 as n'), [{n: 1}]);
  const many = Array.from({length: 40}, () => connector.query(SLOW));
  outcomes.push(...many.map((handle) => failure(handle.result)));
  const other = connect();
  assert.equal((await other.query('select 2 as n')).get(0).n, 2);
  await other.destroy();
  for (const handle of [...few, ...many]) await handle.cancel();
  await Promise.all(outcomes);
  assert.deepEqual(await rows('select 3 as n'), [{n: 3}]);
});

await fact('values of every kind arrive as they are', async () => {
  const exact = [
    ['9223372036854775807', '9223372036854775807'],
    ['18446744073709551615::ubigint', '18446744073709551615'],
    ['-170141183460469231731687303715884105727::hugeint', '-170141183460469231731687303715884105727'],
    ['12345678901234567890.123456789::decimal(38, 9)', '12345678901234567890123456789'], // unscaled
    ["'nan'::double", 'NaN'],
    ["date '2026-01-02'", String(Date.UTC(2026, 0, 2))],
    ["timestamp '2026-01-02 03:04:05.125'", String(Date.UTC(2026, 0, 2, 3, 4, 5, 125))],
    ["'a'::enum('a', 'b')", 'a'],
    ["uuid '00000000-0000-0000-0000-000000000001'", '00000000-0000-0000-0000-000000000001'],
    ["interval '1 month 2 days'", '1 month 2 days'],
    ["'\\x00\\xFF'::blob", '0,255'],
    ["'{\"a\": [1]}'::json", '{"a": [1]}'],
    ['123456789012345678901234567890::bignum', '123456789012345678901234567890'],
  ];
  for (const [sql, expected] of exact) {
    for (let time = 1; time <= 100; time++) { // what was asked before is run, and written, in other ways
      const value = (await connector.query(`select ${sql} as x`)).get(0).x;
      assert.equal(String(value), expected, `${sql}, time ${time}`);
    }
  }
  const [{x}] = await rows("select [{'k': 1, 'v': map {'x': 'y'}}, null] as x");
  assert.deepEqual(JSON.parse(JSON.stringify(x)), [{k: 1, v: {x: 'y'}}, null]);
});

await fact('destroy', async () => {
  await connector.destroy();
  assert.equal(connector.connectionStatus, 'idle');
});

finish();
