/**
 * The device's verbs for a queue of either format: for what is done a buffer at a time. What is done a burst at a
 * time is compiled for each format.
 */
import { Feature, Virtqueue } from "../layout";
import { PackedDevice } from "./packed-device";
import { SplitDevice } from "./split-device";

@final
@unmanaged
export class AnyDevice {
  static isPacked(vq: usize): bool {
    return (load<u32>(vq, Virtqueue.features) & Feature.PACKED) != 0;
  }

  takeChain(vq: usize, to: usize, writable: bool): i32 {
    return AnyDevice.isPacked(vq)
      ? changetype<PackedDevice>(0).takeChain(vq, to, writable)
      : changetype<SplitDevice>(0).takeChain(vq, to, writable);
  }
  untake(vq: usize, from: usize, n: u32): void {
    if (AnyDevice.isPacked(vq)) changetype<PackedDevice>(0).untake(vq, from, n);
    else changetype<SplitDevice>(0).untake(vq, from, n);
  }
  complete(vq: usize, from: usize, n: u32, written: bool): void {
    if (AnyDevice.isPacked(vq)) changetype<PackedDevice>(0).complete(vq, from, n, written);
    else changetype<SplitDevice>(0).complete(vq, from, n, written);
  }
}
