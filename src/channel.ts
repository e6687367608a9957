/**
 * A channel of messages between threads: a ring of bytes in shared memory, for those who want that and no datapath.
 *
 *     const there = channel();                          // in one thread
 *     worker.postMessage(there.handle);
 *     const here = Channel.from(handle);                // in the other
 *     here.send(bytes);
 *     there.receiveMany((messages) => ...);
 *
 *     header | record | record | ...                    the ring, a power of two of bytes
 *     record: u32 length, u32 0 | bytes | padding to 8  never over the ring's end: there a record says SKIP
 *
 * A message begins at a multiple of 8: engines copy into shared memory 8 bytes at a time only where they may, and byte by
 * byte is eight times slower.
 *
 * Indices run free modulo 2^32; each side publishes its own with one sequentially consistent store for a burst. Who
 * sleeps says so first and then looks once more; who publishes looks whether the other sleeps: one of the two sees the
 * other (Dekker), so no wake-up is lost. test/channel-wakeups.test.ts goes through all interleavings of it.
 */
import { sharedMemory } from "#platform";

/**
 * Int32 positions in the header. What one side writes stands 128 bytes from what the other does, so on another cache
 * line wherever the memory begins. HEAD stands alone: a receiver that waits looks at it all the time, and each store to
 * its line has to fetch that back.
 */
const MAGIC = 0;
const CAPACITY = 1;
const MANY = 2;
const CLOSED = 3;
const HEAD = 32;
const TAIL = 64;
const LOCK = 96;
/** Set by a receiver that sleeps, and how often it was woken; the same for senders. */
const RECEIVER_SLEEPS = 128;
const RECEIVER_WOKEN = 129;
const SENDERS_SLEEP = 160;
const SENDERS_WOKEN = 161;
/** Float64 positions: counters of the senders and of the receiver. */
const SENT = 96;
const SENT_BYTES = 97;
const FULL = 98;
const RECEIVED = 112;
const RECEIVED_BYTES = 113;

const HEADER_BYTES = 1024;
const RECORD_HEADER = 8;
const MAGIC_NUMBER = 0x494f4348;
const SKIP = -1;
const LEAST_BYTES = 256;
const MOST_BYTES = 2 ** 30;
/** How long another sender may hold the lock, in milliseconds, and looks at it between two at the clock. */
const LOCK_MS = 1000;
const LOOKS = 65536;
/** Between two looks, where the engine has no `Atomics.waitAsync`: milliseconds. */
const POLL_MS = 1;

export interface ChannelOptions {
  /** Bytes of the ring, a power of two from 256 to 2^30; default 1 MiB. A message takes 8 more, and is padded to 8. */
  bytes?: number;
  /** "many": several threads send, one at a time; default "one". There is always one receiver. */
  producers?: "one" | "many";
}

/** What goes to another thread by `postMessage`, and makes a channel there. */
export interface ChannelHandle {
  readonly buffer: SharedArrayBuffer;
}

export interface ChannelStats {
  /** Messages and their bytes, as published by the senders and as taken by the receiver. */
  sent: number;
  sentBytes: number;
  received: number;
  receivedBytes: number;
  /** How often a sender found no room. */
  full: number;
}

/** A new channel. @throws RangeError for an option out of range; Error, with the reason, where memory can't be shared */
export function channel(options: ChannelOptions = {}): Channel {
  const bytes = options.bytes ?? 2 ** 20;
  if (!Number.isInteger(bytes) || bytes < LEAST_BYTES || bytes > MOST_BYTES || bytes & (bytes - 1)) {
    throw new RangeError(`bytes: ${bytes}, expected a power of two from ${LEAST_BYTES} to ${MOST_BYTES}`);
  }
  if (typeof SharedArrayBuffer === "undefined") {
    throw new Error(`channel: no shared memory here: ${sharedMemory().why}`);
  }
  const buffer = new SharedArrayBuffer(HEADER_BYTES + bytes);
  const header = new Int32Array(buffer);
  header[CAPACITY] = bytes;
  header[MANY] = options.producers === "many" ? 1 : 0;
  Atomics.store(header, MAGIC, MAGIC_NUMBER);
  return Channel.from({ buffer });
}

/** One end of a channel; the same class sends and receives. */
export class Channel {
  readonly handle: ChannelHandle;
  /** Bytes of the longest message: half of the ring, less 8. */
  readonly longest: number;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #counters: Float64Array;
  readonly #capacity: number;
  readonly #many: boolean;
  /** The other side's index as last seen. */
  #tailSeen: number;
  #headSeen: number;
  #taking = false;

  private constructor(handle: ChannelHandle) {
    this.handle = { buffer: handle.buffer };
    this.#words = new Int32Array(handle.buffer);
    this.#bytes = new Uint8Array(handle.buffer);
    this.#counters = new Float64Array(handle.buffer);
    this.#capacity = this.#words[CAPACITY] as number;
    this.#many = this.#words[MANY] === 1;
    this.longest = this.#capacity / 2 - 8;
    this.#tailSeen = Atomics.load(this.#words, TAIL);
    this.#headSeen = Atomics.load(this.#words, HEAD);
  }

  /** The channel of `handle`, in any thread. @throws TypeError for what isn't one */
  static from(handle: ChannelHandle): Channel {
    const buffer = handle?.buffer;
    const isShared = typeof SharedArrayBuffer !== "undefined" && buffer instanceof SharedArrayBuffer;
    if (!isShared || buffer.byteLength <= HEADER_BYTES || new Int32Array(buffer)[MAGIC] !== MAGIC_NUMBER) {
      throw new TypeError("handle: not one of a channel, expected the `handle` of what channel() returned");
    }
    return new Channel(handle);
  }

  /**
   * Sends a copy of `message`.
   * @returns false where there is no room, or the channel is closed: nothing was sent
   * @throws RangeError for a message longer than `longest`; Error where a sender's thread was ended while it sent
   */
  send(message: Uint8Array): boolean {
    if (this.#many) return this.sendMany([message]) === 1;
    if (this.closed) return false;
    const head = this.#words[HEAD] as number;
    const next = this.#put(head, message);
    if (next === head) return false;
    this.#publish(next, 1, message.length);
    this.#wake(RECEIVER_SLEEPS, RECEIVER_WOKEN);
    return true;
  }

  /**
   * Sends copies of as many messages as there is room for, from the first on, published together.
   * @returns how many
   * @throws RangeError for one longer than `longest`, those before it were sent; Error where a sender's thread was ended
   *   while it sent
   */
  sendMany(messages: readonly Uint8Array[]): number {
    if (this.closed || messages.length === 0) return 0;
    const many = this.#many;
    if (many) this.#lock();
    let head = this.#words[HEAD] as number;
    let n = 0;
    let sum = 0;
    try {
      for (; n < messages.length; n++) {
        const message = messages[n] as Uint8Array;
        const next = this.#put(head, message);
        if (next === head) break;
        head = next;
        sum += message.length;
      }
    } finally {
      if (n > 0) this.#publish(head, n, sum);
      if (many) this.#unlock();
      if (n > 0) this.#wake(RECEIVER_SLEEPS, RECEIVER_WOKEN);
    }
    return n;
  }

  /** As `send`, and sleeps while there is no room. @returns false after `timeout` milliseconds, or when closed */
  sendWait(message: Uint8Array, timeout = Number.POSITIVE_INFINITY): boolean {
    if (this.send(message)) return true;
    for (const end = performance.now() + timeout; ; ) {
      const left = end - performance.now();
      if (this.closed || left <= 0) return false;
      const woken = Atomics.load(this.#words, SENDERS_WOKEN);
      Atomics.store(this.#words, SENDERS_SLEEP, 1);
      // Once more: the receiver may have made room before it could see that we sleep.
      if (this.send(message)) return true;
      if (!this.closed) Atomics.wait(this.#words, SENDERS_WOKEN, woken, left);
      if (this.send(message)) return true;
    }
  }

  /** The next message, copied; undefined where there is none. */
  receive(): Uint8Array | undefined {
    this.#refuseWithin();
    const begin = this.#words[TAIL] as number;
    if (!this.#arrived(begin)) return undefined;
    const tail = this.#record(begin);
    const view = this.#view(tail);
    const copy = new Uint8Array(view.length);
    copy.set(view); // slice() copies byte by byte
    this.#taken((tail + recordBytes(view.length)) | 0, 1, view.length);
    return copy;
  }

  /**
   * Up to `max` messages to `sink`, without a copy: views of the ring, valid during the call only. If it throws, they
   * are gone all the same.
   * @returns how many
   * @throws Error from within the sink of another
   */
  receiveMany(sink: (messages: Uint8Array[]) => void, max = 256): number {
    this.#refuseWithin();
    let tail = this.#words[TAIL] as number;
    if (!this.#arrived(tail)) return 0;
    const messages: Uint8Array[] = [];
    let sum = 0;
    while (messages.length < max && this.#arrived(tail)) {
      tail = this.#record(tail);
      const view = this.#view(tail);
      messages.push(view);
      tail = (tail + recordBytes(view.length)) | 0;
      sum += view.length;
    }
    if (messages.length === 0) return 0;
    this.#taking = true;
    try {
      sink(messages);
    } finally {
      this.#taking = false;
      this.#taken(tail, messages.length, sum);
    }
    return messages.length;
  }

  /**
   * Sleeps until there is a message. Not on a browser's main thread, which must not block.
   * @returns false after `timeout` milliseconds, or when it is closed and empty
   */
  wait(timeout = Number.POSITIVE_INFINITY): boolean {
    if (!this.#empty()) return true; // without asking for the time
    const end = performance.now() + timeout;
    while (this.#empty()) {
      const left = end - performance.now();
      if (this.closed || left <= 0) return !this.#empty();
      const woken = this.#announceSleep();
      if (this.#empty() && !this.closed) Atomics.wait(this.#words, RECEIVER_WOKEN, woken, left);
    }
    return true;
  }

  /** As `wait`, without blocking the thread. */
  async waitAsync(timeout = Number.POSITIVE_INFINITY): Promise<boolean> {
    if (!this.#empty()) return true;
    const end = performance.now() + timeout;
    while (this.#empty()) {
      const left = end - performance.now();
      if (this.closed || left <= 0) return !this.#empty();
      const woken = this.#announceSleep();
      if (!this.#empty() || this.closed) continue;
      if (typeof Atomics.waitAsync === "function") {
        await Atomics.waitAsync(this.#words, RECEIVER_WOKEN, woken, left).value;
      } else await new Promise((done) => setTimeout(done, Math.min(POLL_MS, left)));
    }
    return true;
  }

  /** Nothing can be sent any more; what was sent can still be received. All who sleep wake. */
  close(): void {
    Atomics.store(this.#words, CLOSED, 1);
    for (const woken of [RECEIVER_WOKEN, SENDERS_WOKEN]) {
      Atomics.add(this.#words, woken, 1);
      Atomics.notify(this.#words, woken);
    }
  }

  get closed(): boolean {
    return Atomics.load(this.#words, CLOSED) === 1;
  }

  stats(): ChannelStats {
    const at = (counter: number) => this.#counters[counter] as number;
    return {
      sent: at(SENT),
      sentBytes: at(SENT_BYTES),
      received: at(RECEIVED),
      receivedBytes: at(RECEIVED_BYTES),
      full: at(FULL),
    };
  }

  #refuseWithin(): void {
    if (this.#taking) throw new Error("channel: receive from within the sink of another");
  }

  /** Whether there is a message at index `tail`; looks at the senders' index only where it knows of none. */
  #arrived(tail: number): boolean {
    if (((this.#headSeen - tail) | 0) > 0) return true;
    this.#headSeen = Atomics.load(this.#words, HEAD);
    return this.#headSeen !== tail;
  }

  /** The index of the next record that holds a message, from `tail` on. */
  #record(tail: number): number {
    const offset = tail & (this.#capacity - 1);
    const skips = this.#words[(HEADER_BYTES + offset) >> 2] === SKIP;
    return skips ? (tail + this.#capacity - offset) | 0 : tail;
  }

  /** The message in the record at index `tail`. */
  #view(tail: number): Uint8Array {
    const at = HEADER_BYTES + (tail & (this.#capacity - 1));
    return new Uint8Array(this.handle.buffer, at + RECORD_HEADER, this.#words[at >> 2]);
  }

  /** Gives the senders the room up to index `tail`, where `messages` of `sum` bytes were. */
  #taken(tail: number, messages: number, sum: number): void {
    this.#counters[RECEIVED] = (this.#counters[RECEIVED] as number) + messages;
    this.#counters[RECEIVED_BYTES] = (this.#counters[RECEIVED_BYTES] as number) + sum;
    Atomics.store(this.#words, TAIL, tail);
    this.#wake(SENDERS_SLEEP, SENDERS_WOKEN);
  }

  #empty(): boolean {
    return Atomics.load(this.#words, HEAD) === this.#words[TAIL];
  }

  #announceSleep(): number {
    const woken = Atomics.load(this.#words, RECEIVER_WOKEN);
    Atomics.store(this.#words, RECEIVER_SLEEPS, 1);
    return woken;
  }

  /** Shows the receiver the records up to index `head`, in which are `messages` of `sum` bytes. */
  #publish(head: number, messages: number, sum: number): void {
    this.#counters[SENT] = (this.#counters[SENT] as number) + messages;
    this.#counters[SENT_BYTES] = (this.#counters[SENT_BYTES] as number) + sum;
    Atomics.store(this.#words, HEAD, head);
  }

  /**
   * Writes a message's record at index `head`, or at the ring's beginning where it doesn't fit before its end.
   * @returns the index behind it, or `head` where there is no room
   */
  #put(head: number, message: Uint8Array): number {
    const { length } = message;
    if (length > this.longest) {
      throw new RangeError(`message of ${length} bytes, expected ${this.longest} at most`);
    }
    const offset = head & (this.#capacity - 1);
    const size = recordBytes(length);
    const left = this.#capacity - offset;
    const skip = size > left ? left : 0;
    if (((head - this.#tailSeen) | 0) + skip + size > this.#capacity) {
      this.#tailSeen = Atomics.load(this.#words, TAIL);
      if (((head - this.#tailSeen) | 0) + skip + size > this.#capacity) {
        this.#counters[FULL] = (this.#counters[FULL] as number) + 1;
        return head;
      }
    }
    if (skip > 0) this.#words[(HEADER_BYTES + offset) >> 2] = SKIP;
    const at = HEADER_BYTES + (skip > 0 ? 0 : offset);
    this.#words[at >> 2] = length;
    this.#bytes.set(message, at + RECORD_HEADER);
    return (head + skip + size) | 0;
  }

  #wake(sleeps: number, woken: number): void {
    if (Atomics.load(this.#words, sleeps) === 0) return;
    Atomics.store(this.#words, sleeps, 0);
    Atomics.add(this.#words, woken, 1);
    Atomics.notify(this.#words, woken);
  }

  /**
   * Held for a burst's copies only; who holds it doesn't sleep.
   * @throws Error where it isn't given back: the thread that held it was ended
   */
  #lock(): void {
    let end = 0;
    for (let looks = 1; Atomics.compareExchange(this.#words, LOCK, 0, 1) !== 0; looks++) {
      if (looks % LOOKS !== 0) continue;
      const now = performance.now();
      end ||= now + LOCK_MS;
      if (now > end) throw new Error("channel: a sender was ended while it sent, nothing more can be sent");
    }
    this.#tailSeen = Atomics.load(this.#words, TAIL);
  }

  #unlock(): void {
    Atomics.store(this.#words, LOCK, 0);
  }
}

function recordBytes(length: number): number {
  return (RECORD_HEADER + length + 7) & ~7;
}
