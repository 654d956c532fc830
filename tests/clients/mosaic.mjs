// node mosaic.mjs SOCKET_URL REST_URL: what @uwdata/mosaic-core, unmodified, needs.
//
// Tables are made under names that begin with clients_, and in the schema mosaic.

import assert from 'node:assert/strict';
import {Coordinator, Selection, clauseInterval, decodeIPC, makeClient, queryFieldInfo, restConnector, socketConnector} from '@uwdata/mosaic-core';
import {Query, count, sum} from '@uwdata/mosaic-sql';
import {fact, failure, finish, sockets, until} from './facts.mjs';

const [socketUrl, restUrl] = process.argv.slice(2);
const socket = socketConnector({uri: socketUrl});
const rest = restConnector({uri: restUrl});
const rows = async (connector, sql) => decodeIPC(await connector.query({type: 'arrow', sql})).toArray();

for (const [name, connector] of [['socket', socket], ['rest', rest]]) {
  await fact(`${name}: exec`, async () => {
    const sql = 'create or replace table clients_t as select range as n from range(10); insert into clients_t values (10)';
    assert.equal(await connector.query({type: 'exec', sql}), undefined);
  });

  await fact(`${name}: arrow`, async () => {
    const sql = "select count(*)::int as n, 'ä€😀' as text, null::int as nothing from clients_t";
    for (let time = 1; time <= 100; time++) { // what was asked before is run, and written, in other ways
      assert.deepEqual(await rows(connector, sql), [{n: 11, text: 'ä€😀', nothing: null}], `time ${time}`);
      assert.deepEqual(await rows(connector, 'select 1 as x where false'), [], `time ${time}`);
    }
  });

  await fact(`${name}: an error is the database's text`, async () => {
    assert.match(await failure(connector.query({type: 'arrow', sql: 'selec 1'})), /Parser Error: .*selec/);
    assert.match(await failure(connector.query({type: 'json', sql: 'from clients_nowhere'})), /nowhere/);
    assert.match(await failure(connector.query({type: 'exec', sql: 'drop table clients_nowhere'})), /nowhere/);
    assert.deepEqual(await rows(connector, 'select 1 as n'), [{n: 1}]);
  });

  await fact(`${name}: a large result is whole`, async () => {
    const sql = "select range as n, 'row ' || range as t from range(2000000)";
    const table = decodeIPC(await connector.query({type: 'arrow', sql}));
    assert.equal(table.numRows, 2000000);
    assert.deepEqual(table.get(1999999), {n: 1999999, t: 'row 1999999'});
  });

  await fact(`${name}: an error in the middle of a large result rejects`, async () => {
    const sql = "select case when range = 1900000 then error('late')::bigint else range end as n from range(2000000)";
    await failure(rows(connector, sql));
    assert.deepEqual(await rows(connector, 'select 1 as n'), [{n: 1}]);
  });
}

await fact('socket: json', async () => {
  // The connector keeps nothing of a text answer: what was sent is looked at instead.
  await socket.query({type: 'json', sql: "select 1 as x, null as n union all select 2, 'ä'"});
  const {at, ...message} = sockets[0].received.at(-1);
  assert.deepEqual(Object.values(message), [{x: 1, n: null}, {x: 2, n: 'ä'}]);
});

await fact('rest: json', async () => {
  const body = await rest.query({type: 'json', sql: "select 1 as x, 'ä' as t"});
  assert.deepEqual(JSON.parse(new TextDecoder().decode(body)), [{x: 1, t: 'ä'}]);
});

await fact('rest: GET, and an error is not a success', async () => {
  const ask = (sql) => fetch(`${restUrl}?query=${encodeURIComponent(JSON.stringify({type: 'json', sql}))}`);
  assert.deepEqual(await (await ask('select 42 as n')).json(), [{n: 42}]);
  const refused = await ask('selec');
  assert.ok(refused.status >= 400);
  assert.match(await refused.text(), /Parser Error/);
});

await fact('socket: 200 in flight are answered in order, errors among them', async () => {
  const slowly = (n) => `select ${n} as n, count(*)::int as c from range(${n % 10 ? 1 : 1000000})`;
  const asked = Array.from({length: 200}, (_, n) => {
    if (n % 7 === 3) return failure(socket.query({type: 'arrow', sql: `select nothing_${n}`}));
    if (n % 7 === 5) return socket.query({type: 'exec', sql: `create or replace temp table clients_temp as select ${n} as n`});
    if (n % 7 === 6) return rows(socket, 'from clients_temp');
    return rows(socket, slowly(n));
  });
  for (const [n, answer] of (await Promise.all(asked)).entries()) {
    if (n % 7 === 3) assert.match(answer, new RegExp(`nothing_${n}\\b`));
    else if (n % 7 === 5) assert.equal(answer, undefined);
    else if (n % 7 === 6) assert.deepEqual(answer, [{n: n - 1}]);
    else assert.equal(answer[0].n, n);
  }
});

for (const [name, connector] of [['socket', socket], ['rest', rest]]) {
  await fact(`${name}: a coordinator, its clients, a selection and its pre-aggregated tables`, async () => {
    const coordinator = new Coordinator(connector, {logger: null});
    await coordinator.exec([
      "create or replace table clients_flights as select range % 100 as delay, range % 24 as hour, 'c' || range % 3 as carrier from range(24000)",
      'drop schema if exists mosaic cascade',
    ]);
    const [info] = await queryFieldInfo(coordinator, [{table: 'clients_flights', column: 'delay', stats: ['min', 'max', 'count']}]);
    assert.deepEqual([info.type, info.min, info.max, info.count], ['number', 0, 99, 24000]);

    const brush = Selection.crossfilter();
    const errors = [];
    const results = {};
    for (const column of ['hour', 'carrier']) {
      makeClient({
        coordinator,
        selection: brush,
        query: (filter = []) =>
          Query.from('clients_flights').select({key: column, n: count(), total: sum('delay')}).where(filter).groupby(column),
        queryResult: (table) => {
          results[column] = Object.fromEntries([...table].map(({key, n}) => [key, n]));
        },
        queryError: (error) => errors.push(error),
      });
    }
    await until(() => results.hour && results.carrier);
    assert.deepEqual(results.carrier, {c0: 8000, c1: 8000, c2: 8000});

    const scale = {type: 'linear', domain: [0, 100], range: [0, 100]}; // of a chart a hundred pixels wide
    const source = {};
    const clause = (low, high) => clauseInterval('delay', [low, high], {source, scale});
    brush.activate(clause(0, 1));
    for (const [low, high, each] of [[0, 49, 4000], [0, 24, 2000], [90, 99, 800]]) {
      brush.update(clause(low, high));
      await until(() => results.carrier.c0 === each || errors.length);
      assert.deepEqual(errors, []);
    }
    const made = await rows(connector, "select count(*)::int as n from duckdb_tables() where schema_name = 'mosaic'");
    assert.ok(made[0].n > 0, 'the coordinator made no table');
    await coordinator.exec('drop schema mosaic cascade');
  });
}

await fact('socket: a lost connection rejects its queries, and the next one is a new connection', async () => {
  const slow = 'select count(*) from range(1000000) a, range(1000000) b where a.range + b.range = 7';
  const outcome = failure(socket.query({type: 'arrow', sql: slow}));
  await until(() => sockets[0].sent.at(-1)?.sql === slow);
  sockets[0].terminate();
  assert.match(await outcome, /closed/i);
  await until(() => !socket.connected);
  assert.deepEqual(await rows(socket, 'select count(*)::int as n from clients_t'), [{n: 11}]);
});

finish();
