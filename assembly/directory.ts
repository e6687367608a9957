/**
 * The directory and its allocator (layout: `Directory`, `Entry`). For set-up only: nothing is allocated while
 * packets move. An object that is freed keeps its place; the next one of the same size gets it.
 */
import { Directory, Entry, LINE, PAGE } from "./layout";
import { Sync } from "./sync";

export class Objects {
  /** Prepares a fresh memory of `bytes` bytes. */
  static init(bytes: u32): void {
    const d: usize = Directory.ADDRESS;
    store<u32>(d, Directory.VERSION, Directory.version);
    store<u32>(
      d,
      Objects.align(<u32>d + Directory.entries + Directory.ENTRIES * Entry.SIZE, PAGE),
      Directory.top,
    );
    store<u32>(d, bytes, Directory.end);
    store<u32>(d, 1, Directory.count);
    Sync.store<u32>(d + Directory.magic, Directory.MAGIC);
  }

  @inline static align(n: u32, to: u32): u32 {
    return (n + to - 1) & ~(to - 1);
  }

  @inline static entry(id: u32): usize {
    return Directory.ADDRESS + Directory.entries + id * Entry.SIZE;
  }
  @inline static kind(id: u32): u32 {
    return load<u32>(Objects.entry(id), Entry.kind);
  }
  @inline static addr(id: u32): usize {
    return load<u32>(Objects.entry(id), Entry.addr);
  }

  /** Seconds since the host began. */
  @inline static now(): u32 {
    return load<u32>(Directory.ADDRESS, Directory.clock);
  }

  /**
   * `size` bytes of zeros, aligned to `alignment` (a power of two, 64 at least).
   * Returns the object's id, or 0 when the memory or the directory is full.
   */
  static alloc(kind: u32, size: u32, alignment: u32, parent: u32): u32 {
    const d: usize = Directory.ADDRESS;
    size = Objects.align(max<u32>(size, LINE), LINE);
    while (Sync.cas(d + Directory.lock, 0, 1)) {}
    const id = Objects.place(kind, size, max<u32>(alignment, LINE), parent);
    Sync.store<u32>(d + Directory.lock, 0);
    return id;
  }

  static place(kind: u32, size: u32, alignment: u32, parent: u32): u32 {
    const d: usize = Directory.ADDRESS;
    const count = load<u32>(d, Directory.count);
    for (let id: u32 = 1; id < count; id++) {
      const e = Objects.entry(id);
      const addr = load<u32>(e, Entry.addr);
      if (!load<u32>(e, Entry.kind) && load<u32>(e, Entry.size) == size && !(addr & (alignment - 1))) {
        memory.fill(addr, 0, size);
        return Objects.name(id, kind, addr, size, parent);
      }
    }
    const addr = Objects.align(load<u32>(d, Directory.top), alignment);
    if (count == Directory.ENTRIES) return 0;
    if (<u64>addr + size > <u64>load<u32>(d, Directory.end)) return 0;
    store<u32>(d, addr + size, Directory.top);
    store<u32>(d, count + 1, Directory.count);
    return Objects.name(count, kind, addr, size, parent);
  }

  static name(id: u32, kind: u32, addr: u32, size: u32, parent: u32): u32 {
    const e = Objects.entry(id);
    store<u32>(e, addr, Entry.addr);
    store<u32>(e, size, Entry.size);
    store<u32>(e, parent, Entry.parent);
    store<u64>(e, 0, Entry.name);
    store<u64>(e, 0, Entry.name + 8);
    store<u32>(e, kind, Entry.kind);
    return id;
  }

  /** Its memory may be handed out again from now on. */
  static free(id: u32): void {
    store<u32>(Objects.entry(id), 0, Entry.kind);
  }
}
