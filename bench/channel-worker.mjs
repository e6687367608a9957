// The other thread of bench/channel.ts: floods, or answers, over one way of passing messages.
import { parentPort, workerData } from "node:worker_threads";
import { RingBuffer } from "ringbuf.js";
import { Channel } from "../dist/src/channel.js";

const { way, what, size, count, to, from, burst } = workerData;
const message = new Uint8Array(size).fill(7);
if (parentPort === null) throw new Error("bench/channel-worker.mjs: run by bench/channel.ts");
const port = parentPort;

if (way === "channel" || way === "channel, bursts") {
  const there = Channel.from(to);
  const here = Channel.from(from);
  if (what === "flood") {
    if (way === "channel") for (let i = 0; i < count; i++) while (!there.send(message)) {}
    else {
      const messages = Array.from({ length: burst }, () => message);
      for (let left = count; left > 0; )
        left -= there.sendMany(left < burst ? messages.slice(0, left) : messages);
    }
  } else {
    for (let i = 0; i < count; i++) {
      let answered = 0;
      while (!answered) answered = here.receiveMany(([one]) => one && there.send(one), 1);
    }
  }
} else if (way === "ringbuf.js") {
  const there = new RingBuffer(to, Uint8Array);
  const here = new RingBuffer(from, Uint8Array);
  const answer = new Uint8Array(size);
  for (let i = 0; i < count; i++) {
    if (what === "answer") {
      while (here.availableRead() < size) {}
      here.pop(answer);
    }
    while (there.availableWrite() < size) {}
    there.push(what === "answer" ? answer : message);
  }
} else {
  const post = (/** @type {Uint8Array<ArrayBuffer>} */ one) =>
    way === "postMessage, transferred" ? port.postMessage(one, [one.buffer]) : port.postMessage(one);
  const fresh = () => (way === "postMessage, transferred" ? new Uint8Array(size) : message);
  if (what === "flood") for (let i = 0; i < count; i++) post(fresh());
  else {
    let left = count;
    port.on("message", (one) => {
      post(one);
      if (--left === 0) port.close();
    });
  }
}
