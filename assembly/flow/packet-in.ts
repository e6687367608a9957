/** Frames for the controller: copies in host buffers, in a ring that it empties when it likes. */
import { Copy } from "../copy";
import { Count } from "../count";
import { Drop, FlowAction, FlowTable, Packet, Pool, Port, Switch } from "../layout";
import { Mempool } from "../mempool";
import { Rings } from "../ring";

export class PacketIn {
  /** The frame at `FlowTable.work`, or its beginning, as `action` says; `spare`: room for a descriptor. */
  static send(sw: usize, t: usize, port: usize, action: usize, spare: usize): void {
    const work = t + FlowTable.work;
    const pool: usize = load<u32>(sw, Switch.pool);
    const lcore = load<u32>(sw, Switch.lcore);
    const len = <u32>load<u16>(work, Packet.len);
    const n = min(len, min(load<u32>(action, FlowAction.port), load<u32>(pool, Pool.room)));
    if (Mempool.take(pool, lcore, spare, 1)) {
      Copy.bytes(load<u32>(spare), load<u32>(work), n);
      store<u16>(spare, <u16>n, Packet.len);
      store<u16>(
        spare,
        <u16>(((<u32>load<u16>(action, FlowAction.at)) << 8) | load<u32>(action, FlowAction.argument)),
        Packet.flags,
      );
      store<u16>(spare, <u16>len, Packet.room);
      store<u16>(spare, <u16>load<u32>(port, Port.index), Packet.mark);
      if (Rings.enqueueBurst(load<u32>(t, FlowTable.controller), spare, 1)) return;
      Mempool.give(pool, lcore, spare, 1);
    }
    Count.add(port + Port.drops + Drop.CONTROLLER * 8, 1);
  }
}
