/**
 * An lcore (layout: `Lcore`): its pollers, run to completion one after the other.
 *
 * `poll` and `drain` run all of them, for a thread that has other things to do as well. `run` is a thread's whole life: it
 * polls what has work; a poller that finds nothing for a while is armed and left out until it is rung for (vMux,
 * "Scheduling"), and when none is left the thread sleeps. A poller of interrupts isn't polled at all: each ring runs it
 * once, and it is armed again (`serve`). test/doorbell.test.ts goes through all interleavings of it with
 * those who ring for it, pause it, and stop it: who changes the order of what is shared here changes the model there.
 */
import { Count } from "./count";
import { Doorbell } from "./doorbell";
import { Guests } from "./guest";
import { Mappings } from "./iovtee";
import {
  Bridge,
  Guest,
  Kind,
  Kring,
  Lcore,
  LcoreCommand,
  LcoreParked,
  Mapping,
  Poller,
  Port,
  PortKind,
  Ring,
  RxQueue,
  Switch,
  Virtqueue,
} from "./layout";
import { Bridges } from "./netmap/bridge";
import { Krings } from "./netmap/kring";
import { Card, Pmd } from "./nic";
import { Switching } from "./switch";
import { Sync } from "./sync";
import { Vmux } from "./vdpdk/device";
import { VdpdkQueues } from "./vdpdk/queue";
import { VdpdkRx } from "./vdpdk/rx";
import { Device } from "./virtqueue/device";
import { Drivers } from "./virtqueue/driver";
import { Wire } from "./wire";

/** `Poller.idle` of one that is armed and isn't polled: more turns than can be counted. */
const ARMED: u32 = 0xffff_ffff;

export class Lcores {
  @inline static poller(lcore: usize, i: u32): usize {
    return lcore + Lcore.pollers + i * Poller.SIZE;
  }

  /** One turn of a poller. Returns the frames moved. */
  @inline static pollOne(p: usize): u32 {
    const addr: usize = load<u32>(p, Poller.addr);
    const sw: usize = load<u32>(p, Poller.owner);
    const kind = load<u32>(p, Poller.kind);
    if (kind == Kind.GUEST) return Guests.poll(addr);
    if (kind == Kind.PORT) return Switching.pollPort(sw, addr);
    if (kind == Kind.RX_QUEUE) return Switching.pollQueue(sw, load<u32>(addr, RxQueue.port), addr);
    if (kind == Kind.BRIDGE) return Bridges.poll(addr);
    if (kind == Kind.VDPDK_RX) return VdpdkRx.poll(sw, addr);
    return kind == Kind.VDPDK_TX ? Vmux.pollTx(sw, addr) : Vmux.poll(addr);
  }

  /** What was rung for, and one turn of every poller. Returns the frames moved. */
  static poll(lcore: usize): u32 {
    const rung = Sync.load<u32>(lcore + Lcore.doorbell) != load<u32>(lcore, Lcore.seen);
    const moved = rung ? Lcores.answer(lcore) : 0;
    return moved + Lcores.turn(lcore);
  }

  /** Turns until one moves nothing, at most `turns`. Returns the frames moved. */
  static drain(lcore: usize, turns: u32): u32 {
    let moved: u32 = 0;
    while (turns--) {
      const some = Lcores.poll(lcore);
      if (!some) break;
      moved += some;
    }
    return moved;
  }

  /** Bursts that were with a lookup when it threw or trapped are dropped, and the lcore is at rest again. False if none. */
  static abandon(lcore: usize): bool {
    let dropped = false;
    const end = Lcores.poller(lcore, load<u32>(lcore, Lcore.count));
    for (let p = Lcores.poller(lcore, 1); p < end; p += Poller.SIZE) {
      const sw: usize = load<u32>(p, Poller.owner);
      if (sw && Switching.abandon(sw)) dropped = true;
    }
    if (dropped) Lcores.activateAll(lcore);
    return dropped;
  }

  /**
   * Turns until the card at `nic` has `wanted` descriptors to send, or `patience` turns in a row have moved nothing: other
   * lcores may be at work on them. Returns what the card has to send.
   */
  static drainTo(lcore: usize, nic: usize, wanted: u32, patience: u32): u32 {
    if (!ASC_FEATURE_THREADS) return 0;
    let idle: u32 = 0;
    let sent = Wire.toTransmit(nic);
    while (sent < wanted && idle++ < patience) {
      if (Lcores.poll(lcore)) idle = 0;
      else Lcores.pause(lcore);
      sent = Wire.toTransmit(nic);
    }
    return sent;
  }

  /**
   * So many turns, or fewer where a lookup is to be loaded, which `begins` or goes on; false when it is told to stop. Who runs for ever calls it again and again:
   * engines replace code by a faster one only where it is called anew.
   */
  static run(lcore: usize, turns: u32, begins: bool): bool {
    if (!ASC_FEATURE_THREADS) return false;
    if (begins && !Lcores.rest(lcore)) {
      Lcores.park(lcore);
      return false;
    }
    while (turns--) {
      if (!Lcores.listen(lcore)) {
        Lcores.park(lcore);
        return false;
      }
      // Its thread is to load one first, which it can do only outside.
      if (load<u32>(lcore, Lcore.lookups) != load<u32>(lcore, Lcore.lookupsLoaded)) break;
      Count.add(lcore + Lcore.turns, 1);
      if (!load<u32>(lcore, Lcore.active)) Lcores.sleep(lcore);
      else if (!Lcores.turn(lcore)) {
        Count.add(lcore + Lcore.idleTurns, 1);
        Lcores.pause(lcore);
      }
    }
    return true;
  }

  /**
   * Rings, then commands: who commands moves the doorbell last. So a command that isn't seen here moves it after it was
   * noted, and `sleep` doesn't wait. False when it is to stop.
   */
  static listen(lcore: usize): bool {
    if (Sync.load<u32>(lcore + Lcore.doorbell) != load<u32>(lcore, Lcore.seen)) Lcores.answer(lcore);
    const command = Sync.load<u32>(lcore + Lcore.command);
    if (command == LcoreCommand.RUN) return true;
    if (command == LcoreCommand.PAUSE) {
      Lcores.park(lcore);
      return Lcores.rest(lcore);
    }
    // Whoever polls next does so awake: nobody needs to ring.
    Lcores.activateAll(lcore);
    return false;
  }

  /** From now on nothing is touched: says so. */
  static park(lcore: usize): void {
    Sync.store<u32>(lcore + Lcore.parked, LcoreParked.YES);
    atomic.notify(lcore + Lcore.parked, 1);
  }

  /** Parked, before it begins or in a pause, until it is told otherwise. False when it is to stop: nothing was touched. */
  static rest(lcore: usize): bool {
    while (true) {
      atomic.wait<i32>(lcore + Lcore.command, LcoreCommand.PAUSE, -1);
      // Who pauses it again looks at `parked`: so it is taken back first, and the command looked at then.
      Sync.store<u32>(lcore + Lcore.parked, LcoreParked.NO);
      const command = Sync.load<u32>(lcore + Lcore.command);
      if (command == LcoreCommand.STOP) return false;
      if (command == LcoreCommand.RUN) break;
      Lcores.park(lcore);
    }
    // Objects may have been added, or set up anew.
    Lcores.activateAll(lcore);
    return true;
  }

  /** All pollers are polled, those of interrupts armed. */
  static activateAll(lcore: usize): void {
    store<u32>(lcore, 0, Lcore.active);
    const count = load<u32>(lcore, Lcore.count);
    for (let i: u32 = 1; i < count; i++) Lcores.activate(lcore, i);
  }

  /**
   * The calling thread's lcore begins with the pollers that it has now. None of those that are polled was armed: that would be
   * taken back by writing to guests' memory.
   */
  static begin(lcore: usize): void {
    store<u32>(lcore, 0, Lcore.active);
    const count = load<u32>(lcore, Lcore.count);
    for (let i: u32 = 1; i < count; i++) {
      const p = Lcores.poller(lcore, i);
      if (load<u32>(p, Poller.interrupt)) Lcores.ask(p);
      else Lcores.enlist(lcore, i);
    }
  }

  /** From now on a turn polls it. */
  static enlist(lcore: usize, i: u32): void {
    const active = load<u32>(lcore, Lcore.active);
    store<u16>(lcore + Lcore.actives + active * 2, <u16>i);
    store<u32>(lcore, active + 1, Lcore.active);
  }

  static activate(lcore: usize, i: u32): void {
    const p = Lcores.poller(lcore, i);
    store<u32>(p, 0, Poller.idle);
    if (load<u32>(p, Poller.interrupt)) {
      Lcores.ask(p);
      return;
    }
    Lcores.arm(p, false);
    Lcores.enlist(lcore, i);
  }

  /** Serves the interrupts that were rung for, and polls again what else was. Returns the frames moved. */
  static answer(lcore: usize): u32 {
    store<u32>(lcore, Sync.load<u32>(lcore + Lcore.doorbell), Lcore.seen);
    const count = load<u32>(lcore, Lcore.count);
    let moved: u32 = 0;
    for (let w: u32 = 0; w < (count + 31) / 32; w++) {
      const at = lcore + Lcore.signals + w * 4;
      if (!Sync.load<u32>(at)) continue;
      for (let bits = Sync.exchange(at, 0); bits; bits &= bits - 1) {
        const i = w * 32 + ctz<u32>(bits);
        // Not those that there were before pollers were set up anew.
        if (!i || i >= count) continue;
        const p = Lcores.poller(lcore, i);
        if (load<u32>(p, Poller.interrupt)) moved += Lcores.serve(p);
        // One that has found work by itself since it armed is polled already.
        else if (load<u32>(p, Poller.idle) == ARMED) Lcores.activate(lcore, i);
      }
    }
    return moved;
  }

  /** The interrupt's handler: one turn, then it waits for the next interrupt. Returns the frames moved. */
  static serve(p: usize): u32 {
    const guest: usize = load<u32>(p, Poller.guest);
    // The guest whose core this is isn't interrupted once more for what it gets now.
    if (guest) Drivers.arm(load<u32>(load<u32>(guest, Poller.addr), Guest.rx), false);
    let moved = Lcores.pollOne(p);
    if (guest) moved += Lcores.serve(guest);
    Lcores.ask(p);
    return moved;
  }

  /**
   * Asks for a ring, and rings itself where there is work already: what came before the other side could see that it was
   * asked, and what was left.
   */
  static ask(p: usize): void {
    const addr: usize = load<u32>(p, Poller.addr);
    const what = load<u32>(p, Poller.kind);
    if (what == Kind.RX_QUEUE) {
      Lcores.askForBuffers(addr, p);
      Card.unmask(addr);
      if (Pmd.hasBrought(addr)) Doorbell.ring(p);
    } else if (what == Kind.GUEST) {
      // It takes back what it has sent when it is interrupted for what it receives.
      const rx: usize = load<u32>(addr, Guest.rx);
      Drivers.arm(rx, true);
      if (Drivers.isPending(rx)) Doorbell.ring(p);
    } else {
      const vq: usize = load<u32>(addr, Port.from);
      if (!Device.isUsable(vq)) return;
      Device.arm(vq, true);
      if (Device.isPending(vq)) Doorbell.ring(p);
    }
  }

  /** A mapped queue that is short of the guest's buffers asks for them, and takes those that have come by then. */
  static askForBuffers(q: usize, p: usize): void {
    const mapping: usize = load<u32>(q, RxQueue.mapping);
    if (!mapping) return;
    const vq: usize = load<u32>(mapping, Mapping.virtqueue);
    if (!Device.isUsable(vq)) return;
    const before = Device.cursor(vq);
    Device.arm(vq, Pmd.wantsRefill(q));
    if (!Pmd.wantsRefill(q)) return;
    Mappings.refill(mapping, load<u32>(load<u32>(p, Poller.owner), Switch.lcore));
    // What it asked for followed from how far it had got.
    if (Device.cursor(vq) != before) Doorbell.ring(p);
  }

  /** One turn of the pollers that have work; those that haven't had any for long are armed. Returns the frames moved. */
  static turn(lcore: usize): u32 {
    const patient = load<u32>(lcore, Lcore.patience);
    let active = load<u32>(lcore, Lcore.active);
    let moved: u32 = 0;
    let at = lcore + Lcore.actives;
    for (let end = at + active * 2; at != end; ) {
      const p = Lcores.poller(lcore, load<u16>(at));
      const some = Lcores.pollOne(p);
      moved += some;
      const idle: u32 = some ? 0 : min(load<u32>(p, Poller.idle) + 1, ARMED - 1);
      store<u32>(p, idle, Poller.idle);
      at += 2;
      const own = load<u32>(p, Poller.patience);
      const patience = own ? own : patient;
      // Nobody rings when the card has sent what it was lent.
      if (idle < patience || Lcores.hasLent(p)) continue;
      const cursors = Lcores.cursors(p);
      Lcores.arm(p, true);
      // Once more: what came before the other side could see that this one is armed. What it asks for may follow from
      // how far it has got (event indices), so what it has asked for holds only if it gets no further now.
      const late = Lcores.pollOne(p);
      if (late || Lcores.cursors(p) != cursors || Lcores.hasLent(p)) {
        moved += late;
        Lcores.arm(p, false);
        store<u32>(p, 0, Poller.idle);
        continue;
      }
      store<u32>(p, ARMED, Poller.idle);
      // The last one takes its place.
      end -= 2;
      at -= 2;
      store<u16>(at, load<u16>(end));
      store<u32>(lcore, --active, Lcore.active);
    }
    return moved;
  }

  /** Asks for a ring when there is work for the poller, or, when it polls, for none. */
  static arm(p: usize, on: bool): void {
    const addr: usize = load<u32>(p, Poller.addr);
    const what = load<u32>(p, Poller.kind);
    if (what == Kind.GUEST) Guests.arm(addr, on);
    else if (what == Kind.BRIDGE) Bridges.arm(addr, on);
    else if (what == Kind.RX_QUEUE) Lcores.armQueue(addr, on);
    else if (what == Kind.VDPDK) Vmux.armShared(addr, on);
    else if (what == Kind.VDPDK_RX) Vmux.armRx(addr, on);
    else if (what == Kind.VDPDK_TX) VdpdkQueues.arm(addr, on);
    else if (load<u32>(addr, Port.kind) == PortKind.NETMAP) Lcores.armNetmap(addr, on);
    else if (load<u32>(addr, Port.kind) == PortKind.VHOST) {
      const vq: usize = load<u32>(addr, Port.from);
      if (Device.isUsable(vq)) Device.arm(vq, on);
    } else if (load<u32>(addr, Port.kind) == PortKind.VDPDK) VdpdkQueues.arm(load<u32>(addr, Port.from), on);
    else Sync.store<u32>(load<u32>(addr, Port.from) + Ring.armed, u32(on));
  }

  /**
   * Whether it is a port whose guest's buffers a card has to send (zero-copy transmit), or a bridge that can't send before the
   * card has.
   */
  @inline static hasLent(p: usize): bool {
    if (load<u32>(p, Poller.kind) == Kind.BRIDGE)
      return load<u32>(load<u32>(p, Poller.addr), Bridge.blocked) != 0;
    if (load<u32>(p, Poller.kind) != Kind.PORT) return false;
    const port: usize = load<u32>(p, Poller.addr);
    if (load<u32>(port, Port.kind) != PortKind.VHOST) return false;
    return load<u32>(load<u32>(port, Port.from), Virtqueue.lent) != 0;
  }

  /** A card's receive queue that is mapped, and has too few of the guest's buffers, waits for those as well. */
  static armQueue(q: usize, on: bool): void {
    Card.arm(q, on);
    const mapping: usize = load<u32>(q, RxQueue.mapping);
    if (!mapping) return;
    const vq: usize = load<u32>(mapping, Mapping.virtqueue);
    if (Device.isUsable(vq)) Device.arm(vq, on && Pmd.wantsRefill(q));
  }

  /** A netmap port waits for slots to send, and, where the host's stack is behind it, for that. */
  static armNetmap(port: usize, on: bool): void {
    Krings.arm(load<u32>(port, Port.from), on);
    const rx: usize = load<u32>(port, Port.to);
    if (!load<u32>(rx, Kring.toStack)) return;
    Krings.arm(rx, on);
    Sync.store<u32>(load<u32>(rx, Kring.fromStack) + Ring.armed, u32(on));
  }

  /** How far a poller has got in the virtqueues that it empties, as one number. */
  static cursors(p: usize): u64 {
    const addr: usize = load<u32>(p, Poller.addr);
    const what = load<u32>(p, Poller.kind);
    if (what == Kind.GUEST) return Guests.cursor(addr);
    if (what == Kind.RX_QUEUE) {
      const mapping: usize = load<u32>(addr, RxQueue.mapping);
      return mapping ? Device.cursor(load<u32>(mapping, Mapping.virtqueue)) : 0;
    }
    // Whose a vDPDK descriptor is, or a bridge's slot, doesn't depend on how far anyone is.
    if (what != Kind.PORT) return 0;
    return load<u32>(addr, Port.kind) == PortKind.VHOST ? Device.cursor(load<u32>(addr, Port.from)) : 0;
  }

  /** Between two turns of which the first moved nothing. */
  @inline static pause(lcore: usize): void {
    for (
      let i = load<u32>(lcore, Lcore.pause);
      i && Sync.load<u32>(lcore + Lcore.command) == LcoreCommand.RUN;
      i--
    ) {}
  }

  /** Every poller is armed: nothing to do until the doorbell is moved. */
  static sleep(lcore: usize): void {
    if (Sync.load<u32>(lcore + Lcore.doorbell) != load<u32>(lcore, Lcore.seen)) return;
    Count.add(lcore + Lcore.sleeps, 1);
    Sync.store<u32>(lcore + Lcore.asleep, 1);
    atomic.wait<i32>(lcore + Lcore.doorbell, load<u32>(lcore, Lcore.seen), -1);
    Sync.store<u32>(lcore + Lcore.asleep, 0);
  }
}
