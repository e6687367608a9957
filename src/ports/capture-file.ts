// Capture files on disk, where the platform has files (Node, Deno, Bun). Synchronous on both sides: no record is ever
// half handed over when a signal handler runs, and a capture larger than memory
// is read and written a piece at a time. The formats are in capture.ts
// and capture-encoder.ts.

import { files, runtime } from "#platform";
import type { Files } from "../platform/platform.ts";
import { type CapturedFrame, CaptureError, framesOf } from "./capture.ts";
import { CaptureEncoder, MAXIMUM_RECORD } from "./capture-encoder.ts";

const CHUNK = 256 * 1024;
const READABLE = "a pcap or pcapng capture that can be read";
const WRITABLE = "a file that can be written";

/**
 * The Ethernet frames of a pcap or pcapng file, in order. Each frame's `data` is
 * valid until the next one is asked for. Throws a CaptureError, at the first
 * frame asked for if the file can't be opened (in a browser or a Worker none
 * can), and at a break after every frame before it.
 */
export function* readCapture(path: string): Generator<CapturedFrame, void, undefined> {
  const { openSync, readSync, closeSync } = filesFor(path);
  const file = attempt(path, READABLE, () => openSync(path, "r"));
  try {
    yield* framesOf(path, piecesOf());
  } finally {
    closeSync(file);
  }

  function* piecesOf(): Generator<Uint8Array, void, undefined> {
    const chunk = new Uint8Array(CHUNK);
    for (;;) {
      const length = attempt(path, READABLE, () => readSync(file, chunk, 0, CHUNK, null));
      if (length === 0) return;
      yield chunk.subarray(0, length);
    }
  }
}

/**
 * Writes a pcap (nanoseconds, Ethernet) that is valid from the constructor on:
 * only whole records reach the file, those in the buffer at the latest with
 * close(). Every method throws a CaptureError where the file can't be written:
 * what was written before stays, and the writer is closed.
 */
export class CaptureWriter {
  readonly #path: string;
  readonly #files: Files;
  readonly #encoder = new CaptureEncoder();
  readonly #buffer = new Uint8Array(CHUNK + MAXIMUM_RECORD);
  #file: number | undefined;
  #used = 0;
  #written = 0;

  /** Creates the file, or empties it. */
  constructor(path: string) {
    this.#path = path;
    this.#files = filesFor(path);
    const file = attempt(path, WRITABLE, () => this.#files.openSync(path, "w"));
    this.#file = file;
    const header = this.#encoder.header();
    this.#buffer.set(header);
    this.#used = header.length;
    this.#flush(file);
  }

  /** Appends a burst; `timestamp` in ns since the epoch, for all of it. Copies, so the frames may change at once. */
  write(frames: readonly Uint8Array[], timestamp: bigint): void {
    const file = this.#file;
    if (file === undefined) throw new Error(`${this.#path}: write() after close()`);
    for (const frame of frames) {
      if (this.#used >= CHUNK) this.#flush(file);
      this.#used = this.#encoder.append(this.#buffer, this.#used, frame, timestamp);
    }
  }

  /** Writes what is buffered and closes the file. A second call does nothing. */
  close(): void {
    if (this.#file === undefined) return;
    this.#flush(this.#file);
    this.#files.closeSync(this.#file);
    this.#file = undefined;
  }

  #flush(file: number): void {
    let done = 0;
    try {
      attempt(this.#path, WRITABLE, () => {
        while (done < this.#used) {
          done += this.#files.writeSync(file, this.#buffer, done, this.#used - done);
        }
      });
      this.#written += done;
      this.#used = 0;
    } catch (error) {
      this.#file = undefined;
      this.#abandon(file);
      throw error;
    }
  }

  /** A full disk can take part of a record: gives it back, so that the file stays valid. */
  #abandon(file: number): void {
    try {
      this.#files.ftruncateSync(file, this.#written);
    } catch {
      // A pipe has no length to give back.
    }
    this.#files.closeSync(file);
  }
}

/** The platform's files; `path` is the one that is wanted. */
function filesFor(path: string): Files {
  if (files) return files;
  const expected =
    "Node, Deno or Bun (elsewhere: CaptureDecoder and CaptureEncoder, which take and give bytes)";
  throw new CaptureError(path, undefined, `a file, which ${runtime().name} has none of`, expected);
}

const REASONS: Record<string, string> = {
  ENOENT: "no such file or directory",
  ENOTDIR: "a part of the path is not a directory",
  EISDIR: "is a directory",
  EACCES: "permission denied",
  EPERM: "not permitted",
  EROFS: "read-only file system",
  ENOSPC: "no space left on the device",
};

/** Runs a call on the file system; its failure becomes a CaptureError that names the file. */
function attempt<T>(path: string, expected: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    const { code = "", message } = error as NodeJS.ErrnoException;
    throw new CaptureError(path, undefined, REASONS[code] ?? message, expected);
  }
}
