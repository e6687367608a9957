/** The WebAssembly core on one memory: loads it, and reads and writes what lies in the memory. */
import { loadCore } from "#platform";
import { Directory, Entry, type Kind, LINE, PAGE } from "../../assembly/layout.ts";
import { Access } from "./access.ts";
import { adapt, type Exports } from "./exports.ts";
import { checkLookupModule } from "./lookup.ts";

/** Where an object is: its id in the directory, and its address in memory. */
export interface Placed {
  readonly id: number;
  readonly address: number;
}

/** The core's exports on one memory, with views of it. The memory never grows, so views stay valid. */
export class Core extends Access {
  readonly exports: Exports;
  /** Lookups in JavaScript by their switch's address: called with the port's number and the number of frames. */
  readonly lookups = new Map<number, (port: number, frames: number) => void>();
  /** Lookups in WebAssembly, in the order of their places in the table: place 1 is the first one's. */
  readonly lookupModules: WebAssembly.Module[] = [];
  #inLookup = false;

  private constructor(
    memory: WebAssembly.Memory,
    /** The compiled core, which can be posted to another thread. */
    readonly module: WebAssembly.Module,
  ) {
    super(memory);
    const lookup = (sw: number, port: number, frames: number) => this.#lookup(sw >>> 0, port, frames);
    this.exports = adapt(new WebAssembly.Instance(module, { env: { memory, lookup } }).exports);
  }

  /**
   * A fresh memory with an empty directory.
   * @param bytes size, rounded up to pages of 64 KiB; at most 4 GiB less one page
   * @throws RangeError where the size isn't possible
   */
  static async create(bytes: number, shared: boolean): Promise<Core> {
    const pages = Math.ceil(bytes / PAGE);
    if (!(pages >= 16 && pages < 65536)) {
      throw new RangeError(`memory: ${bytes} bytes, expected 1 MiB to 4 GiB - 64 KiB`);
    }
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared });
    const core = new Core(memory, await loadCore(shared));
    core.exports.init(pages * PAGE);
    return core;
  }

  /**
   * Another instance on a memory that holds a host's objects, in any thread.
   * @param module what another thread's `core.module` is, so that this one needn't load it
   * @throws Error for a memory that holds none, or those of another version
   */
  static async attach(memory: WebAssembly.Memory, module?: WebAssembly.Module): Promise<Core> {
    const shared = typeof SharedArrayBuffer !== "undefined" && memory.buffer instanceof SharedArrayBuffer;
    const core = new Core(memory, module ?? (await loadCore(shared)));
    if (core.u32(Directory.ADDRESS + Directory.magic) !== Directory.MAGIC) {
      throw new Error(`memory: no directory at ${Directory.ADDRESS}, expected one made by Host.create`);
    }
    const version = core.u32(Directory.ADDRESS + Directory.version);
    if (version !== Directory.VERSION) {
      throw new Error(`memory: layout version ${version}, expected ${Directory.VERSION}`);
    }
    return core;
  }

  /**
   * A new object of `bytes` zeros, aligned to `alignment` (a power of two, 64 at least).
   * @throws RangeError naming `what` where the memory or the directory is full
   */
  place(kind: Kind, bytes: number, what: string, parent = 0, alignment: number = LINE): Placed {
    if (bytes > this.bytes.length) this.made(0, what);
    const id = this.exports.alloc(kind, bytes, alignment, parent);
    return { id, address: this.made(id, what) };
  }

  /** Address of the object with directory id `id`; `what` names it where the memory was full. */
  made(id: number, what: string): number {
    if (id === 0) throw new RangeError(`${what}: no room left in the host's memory, create it with more`);
    return this.u32(Directory.ADDRESS + Directory.entries + id * Entry.SIZE + Entry.addr);
  }

  /** Names an object in the directory: ASCII, up to 16 characters. */
  name(id: number, name: string): void {
    const at = Directory.ADDRESS + Directory.entries + id * Entry.SIZE + Entry.name;
    for (let i = 0; i < Entry.NAME_BYTES; i++) this.bytes[at + i] = name.charCodeAt(i) & 0x7f;
  }

  /** What the core calls for a burst. What it throws goes through the core, to whoever called that. */
  #lookup(sw: number, port: number, frames: number): void {
    this.#inLookup = true;
    try {
      this.lookups.get(sw)?.(port, frames);
    } finally {
      this.#inLookup = false;
    }
  }

  /** @throws Error within a lookup, which may change nothing but destinations */
  refuseInLookup(): void {
    if (this.#inLookup) throw new Error("called from within a lookup, expected to be called after poll()");
  }

  /**
   * An instance of a lookup on this memory, called by this instance of the core without going through JavaScript.
   * @returns its place in the table: the same in each instance of the core that was given the same modules in this order;
   *   and how many bytes of state it asks for
   * @throws RangeError for a module that isn't a lookup, or one for another kind of memory
   */
  addLookup(module: WebAssembly.Module): { place: number; stateBytes: number } {
    checkLookupModule(module);
    let exports: WebAssembly.Exports;
    try {
      exports = new WebAssembly.Instance(module, { env: { memory: this.memory } }).exports;
    } catch (error) {
      const shared = this.memory.buffer instanceof ArrayBuffer ? "isn't shared" : "is shared";
      const pages = this.bytes.length / PAGE;
      throw new RangeError(`lookup: ${error}; the host's memory ${shared}, and has ${pages} pages`);
    }
    const { table } = this.exports;
    const known = this.lookupModules.indexOf(module);
    const place = 1 + (known < 0 ? this.lookupModules.length : known);
    if (table.length <= place) table.grow(place + 1 - table.length);
    if (known < 0) {
      table.set(place, exports.lookup);
      try {
        this.exports.tryLookup(place);
      } catch (error) {
        throw new RangeError(`lookup: called for no frames: ${error}; expected seven i32 and no result`);
      }
      this.lookupModules.push(module);
    }
    const { stateBytes } = exports;
    return { place, stateBytes: stateBytes instanceof WebAssembly.Global ? Number(stateBytes.value) : 0 };
  }
}
