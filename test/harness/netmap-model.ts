/**
 * A slow model of netmap's ring rules, a slot at a time: what a sync of a pipe does with whatever its users wrote. Held
 * against assembly/netmap in test/netmap.test.ts.
 */
import { FRAME_MAX, NETMAP_FIRST, NETMAP_FRAGMENTS, SlotFlag, SlotRefusal } from "../../assembly/layout.ts";

export interface Slot {
  bufIdx: number;
  len: number;
  flags: number;
  ptr: number;
}

/** One ring: what its user wrote, and what the host knows. */
export class Ring {
  head = 0;
  cur = 0;
  rhead = 0;
  hwcur = 0;
  skipping = false;
  reinits = 0;
  readonly refusals: number[] = Array.from({ length: SlotRefusal.COUNT }, () => 0);

  constructor(
    readonly slots: Slot[],
    /** Whose buffers its user may put into it. */
    readonly owner: number,
    public hwtail: number,
  ) {}

  /** The slots from `from` up to before `to`. */
  between(from: number, to: number): number[] {
    const list: number[] = [];
    for (let i = from; i !== to; i = (i + 1) % this.slots.length) list.push(i);
    return list;
  }

  /** head must be one of the user's slots or their end, and cur not before it. */
  prologue(): void {
    const owned = [...this.between(this.rhead, this.hwtail), this.hwtail];
    const [head, cur] = [owned.indexOf(this.head), owned.indexOf(this.cur)];
    if (head < 0 || cur < head) {
      this.reinits++;
      this.head = this.rhead;
      this.cur = this.rhead;
    } else this.rhead = this.head;
  }
}

export interface Memory {
  /** By buffer: whose it is. */
  owners: number[];
  /** Bytes of a buffer. */
  room: number;
}

/** What is wrong with a slot that is to be sent through a pipe. */
function fault({ bufIdx, len, flags, ptr }: Slot, { owners, room }: Memory): SlotRefusal | undefined {
  const buffer = bufIdx - NETMAP_FIRST;
  if (buffer < 0 || buffer >= owners.length) return SlotRefusal.INDEX;
  // A pipe has no indirect buffers.
  if (flags & SlotFlag.INDIRECT) return ptr > 0 || len > 0 ? SlotRefusal.INDIRECT : SlotRefusal.LENGTH;
  if (len > room || len === 0) return SlotRefusal.LENGTH;
  return undefined;
}

/** A sync of a pipe: from transmit ring `t` to receive ring `r`. */
export function txsync(t: Ring, r: Ring, memory: Memory): void {
  t.prologue();
  r.prologue();
  const { owners } = memory;
  const n = t.slots.length;
  const buffer = (slot: Slot) => slot.bufIdx - NETMAP_FIRST;
  for (;;) {
    const given = t.between(t.hwcur, t.rhead);
    const free = r.between(r.hwtail, (r.rhead + n - 1) % n);
    if (given.length === 0 || free.length === 0) break;
    const end = given.findIndex((i) => !((t.slots[i] as Slot).flags & SlotFlag.MOREFRAG));
    const frame = (end < 0 ? given : given.slice(0, end + 1)).map((i) => t.slots[i] as Slot);
    const drop = (why?: SlotRefusal) => {
      t.hwcur = (t.hwcur + frame.length) % n;
      if (why !== undefined) (t.refusals[why] as number)++;
    };
    if (t.skipping) {
      t.skipping = end < 0;
      drop();
      continue;
    }
    if (frame.length > NETMAP_FRAGMENTS || (end < 0 && frame.length === n - 1)) {
      t.skipping = end < 0;
      drop(SlotRefusal.FRAGMENTS);
      continue;
    }
    if (end < 0) break;
    const faults = frame.map((slot) => fault(slot, memory)).filter((why) => why !== undefined);
    const bytes = frame.reduce((sum, { len }) => sum + len, 0);
    const why = faults[0] ?? (bytes > FRAME_MAX ? SlotRefusal.LENGTH : undefined);
    if (why !== undefined) {
      drop(why);
      continue;
    }
    if (frame.length > free.length) break;
    const empty = free.slice(0, frame.length).map((i) => r.slots[i] as Slot);
    const isBad = (list: Slot[], owner: number) => (slot: Slot, i: number) =>
      owners[buffer(slot)] !== owner || list.findIndex((other) => other.bufIdx === slot.bufIdx) < i;
    const bad = empty.findIndex(isBad(empty, r.owner));
    if (bad >= 0) {
      const outside = owners[buffer(empty[bad] as Slot)] === undefined;
      (r.refusals[outside ? SlotRefusal.INDEX : SlotRefusal.OWNER] as number)++;
      for (const slot of empty.slice(0, bad + 1)) Object.assign(slot, { len: 0, flags: 0 });
      r.hwtail = (r.hwtail + bad + 1) % n;
      continue;
    }
    if (frame.some(isBad(frame, t.owner))) {
      drop(SlotRefusal.OWNER);
      continue;
    }
    frame.forEach((sent, i) => {
      const to = empty[i] as Slot;
      const { bufIdx } = to;
      owners[buffer(sent)] = r.owner;
      owners[buffer(to)] = t.owner;
      const flags = SlotFlag.BUF_CHANGED | (i + 1 < frame.length ? SlotFlag.MOREFRAG : 0);
      Object.assign(to, { bufIdx: sent.bufIdx, len: sent.len, flags, ptr: 0 });
      Object.assign(sent, { bufIdx, len: 0, flags: SlotFlag.BUF_CHANGED, ptr: 0 });
    });
    r.hwtail = (r.hwtail + frame.length) % n;
    drop();
  }
  t.hwtail = (t.hwcur + n - 1) % n;
}
