/**
 * A card as the wire sees it: with an embedded switch (layout: `Veb`), where guests own functions of it, or without.
 */
import { Nic } from "./layout";
import { Card } from "./nic";
import { Vebs } from "./veb";

export class Wire {
  /** A frame arrives; true if it was written to a buffer. Call `flush` at the end of a burst. */
  @inline static receive(nic: usize, frame: usize, len: u32): bool {
    const veb: usize = load<u32>(nic, Nic.veb);
    return veb ? Vebs.receive(nic, veb, frame, len) : Card.receive(nic, frame, len);
  }

  static flush(nic: usize): void {
    const veb: usize = load<u32>(nic, Nic.veb);
    if (veb) Vebs.flush(nic, veb);
    else Card.flush(nic);
  }

  /** Descriptors that are to be sent, whole frames, after the card has read what its functions have for it. */
  static toTransmit(nic: usize): u32 {
    const veb: usize = load<u32>(nic, Nic.veb);
    if (veb) Vebs.read(nic, veb);
    return Card.toTransmit(nic);
  }
}
