// node crdt.mjs URL ROOM [TOKEN]: what @sqlrooms/crdt's WebSocket connector, unmodified, needs.
//
// The room need not be empty. Run again with the same one, after the server was started again,
// it shows that what was in the room has outlived the server.

import assert from 'node:assert/strict';
import {createWebSocketSyncConnector} from '@sqlrooms/crdt/dist/sync/webSocketSyncConnector.js';
import {LoroDoc} from 'loro-crdt';
import {fact, finish, sockets, until} from './facts.mjs';

const [url, roomId, token] = process.argv.slice(2);
const run = `run ${Date.now()}`;

/** A document that a connector keeps like the others of its room. */
class Member {
  doc = new LoroDoc();
  connector = createWebSocketSyncConnector({url, roomId, token, initialDelayMs: 50});
  status = '';

  constructor() {
    this.connector.setStatusListener?.((status) => {
      this.status = status;
    });
  }

  /** Until the snapshot of the room has come. */
  async join() {
    await this.connector.connect(this.doc);
    this.socket = sockets.at(-1);
    await until(() => this.heard('crdt-snapshot'));
    await new Promise(setImmediate); // the connector has listened for longer than we have
  }

  heard(type) {
    return this.socket.received.some((message) => message.type === type);
  }

  write(key, value) {
    this.doc.getMap('facts').set(key, value);
    this.doc.commit();
  }

  read(key) {
    return this.doc.getMap('facts').get(key);
  }

  list() {
    return this.doc.getList('list').toArray();
  }
}

console.warn = () => {}; // the connector tells of every socket that closes
const one = new Member();
const two = new Member();

await fact('join, and get the room', async () => {
  await one.join();
  const types = one.socket.received.map(({type}) => type).filter((type) => /joined|shot$/.test(type));
  assert.deepEqual(types, ['crdt-joined', 'crdt-snapshot']);
  console.log(`   runs known to the room: ${one.doc.getList('runs').length}`);
  one.doc.getList('runs').push(run);
  one.doc.commit();
  await until(() => one.heard('crdt-update-ack'));
});

await fact('a change is seen by the other', async () => {
  await two.join();
  one.write('from one', run);
  await until(() => two.read('from one') === run);
  two.write('from two', run);
  await until(() => one.read('from two') === run);
});

await fact('changes at the same time converge', async () => {
  const before = one.list().length;
  for (let n = 0; n < 100; n += 1) {
    for (const member of [one, two]) {
      member.doc.getList('list').insert(0, n);
      member.doc.getText('text').insert(0, `${n};`);
      member.doc.commit();
    }
  }
  await until(() => one.list().length === before + 200 && two.list().length === before + 200);
  assert.deepEqual(one.doc.toJSON(), two.doc.toJSON());
});

await fact('one who comes late catches up', async () => {
  const late = new Member();
  await late.join();
  await until(() => late.read('from two') === run);
  assert.deepEqual(late.doc.toJSON(), one.doc.toJSON());
  late.write('from late', run);
  await until(() => one.read('from late') === run && two.read('from late') === run);
  await late.connector.disconnect();
});

await fact('a document that is not empty does not replace the room', async () => {
  const stranger = new Member();
  stranger.write('from stranger', run);
  await stranger.join();
  await until(() => stranger.read('from one') === run);
  assert.equal(one.read('from one'), run);
  await stranger.connector.disconnect();
});

await fact('rooms do not hear each other', async () => {
  const elsewhere = new LoroDoc();
  const options = {url, roomId: `${roomId} elsewhere ${run}`, token};
  const connector = createWebSocketSyncConnector(options);
  await connector.connect(elsewhere);
  const socket = sockets.at(-1);
  await until(() => socket.received.some(({type}) => type === 'crdt-snapshot'));
  one.write('loud', run);
  await until(() => two.read('loud') === run);
  assert.equal(elsewhere.getMap('facts').get('loud'), undefined);
  await connector.disconnect();
});

await fact('a lost connection is mended, and what was missed is caught up with', async () => {
  two.socket.terminate();
  await until(() => two.status === 'closed');
  one.write('missed', run);
  await until(() => two.status === 'open');
  two.socket = sockets.at(-1);
  await until(() => two.read('missed') === run);
  two.write('after', run);
  await until(() => one.read('after') === run);
});

if (token) {
  await fact('without the token nobody gets in', async () => {
    const stranger = new LoroDoc();
    const options = {url, roomId, token: `${token}?`, maxRetries: 0};
    const connector = createWebSocketSyncConnector(options);
    await connector.connect(stranger);
    const socket = sockets.at(-1);
    await until(() => socket.readyState === socket.CLOSED);
    assert.deepEqual(stranger.toJSON(), {});
    assert.ok(!socket.received.some(({type}) => type === 'crdt-snapshot'));
  });
}

finish();
