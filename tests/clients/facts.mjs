// What the scripts beside this file share: facts, stated one at a time, and a socket that listens in.
//
// A fact is a sentence and a function that throws, or takes too long, where it does not hold. What
// held is on standard output, a line each; the first that does not hold ends the script with status
// 1, unless KEEP_GOING is set, which is for looking at other servers. The clients themselves are
// never touched: they are given sockets that write down what passes through them.

import {WebSocket} from 'ws';

const SECONDS = 20; // for one fact; a loaded machine, not the server, decides
let status = 0;

/** States a fact and checks it. */
export async function fact(sentence, check) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing after ${SECONDS} s`)), SECONDS * 1000);
  });
  try {
    await Promise.race([check(), late]);
    console.log(`ok ${sentence}`);
  } catch (error) {
    console.log(`not ok ${sentence}: ${error?.stack ?? error?.message ?? error}`);
    status = 1;
    if (!process.env.KEEP_GOING) finish();
  } finally {
    clearTimeout(timer);
  }
}

/** Ends the script, without waiting for sockets that wait for the other side to close them. */
export function finish() {
  process.exit(status);
}

/** The message of what *promise* rejects with; throws where it does not reject. */
export async function failure(promise) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    return String(error?.message ?? error);
  }
  throw new Error(`it did not fail: ${inspect(value)}`);
}

/** Waits until *condition* holds; the fact it belongs to bounds the time. */
export async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

function inspect(value) {
  return JSON.stringify(value, (_, each) => (typeof each === 'bigint' ? String(each) : each));
}

/** The sockets that the clients have opened, the newest last. */
export const sockets = [];

/** A WebSocket that keeps the JSON that is sent and received in text messages. */
class Overheard extends WebSocket {
  sent = [];
  received = [];

  constructor(...options) {
    super(...options);
    sockets.push(this);
    this.on('message', (data, binary) => {
      if (!binary) this.received.push({...JSON.parse(data), at: performance.now()});
    });
  }

  send(data, ...options) {
    if (typeof data === 'string') this.sent.push({...JSON.parse(data), at: performance.now()});
    super.send(data, ...options);
  }
}

globalThis.WebSocket = Overheard;
