/**
 * The device's verbs for a queue of either format: for what is done a buffer at a time. What is done a burst at a
 * time is compiled for each format.
 */
import { Device } from "./device";
import { PackedDevice } from "./packed-device";
import { SplitDevice } from "./split-device";

@final
@unmanaged
export class AnyDevice {
  take(vq: usize, to: usize, max: u32): u32 {
    return Device.isPacked(vq)
      ? changetype<PackedDevice>(0).take(vq, to, max)
      : changetype<SplitDevice>(0).take(vq, to, max);
  }
  takeChain(vq: usize, to: usize, writable: bool): i32 {
    return Device.isPacked(vq)
      ? changetype<PackedDevice>(0).takeChain(vq, to, writable)
      : changetype<SplitDevice>(0).takeChain(vq, to, writable);
  }
  untake(vq: usize, from: usize, n: u32): void {
    if (Device.isPacked(vq)) changetype<PackedDevice>(0).untake(vq, from, n);
    else changetype<SplitDevice>(0).untake(vq, from, n);
  }
  complete(vq: usize, from: usize, n: u32, written: bool): void {
    if (Device.isPacked(vq)) changetype<PackedDevice>(0).complete(vq, from, n, written);
    else changetype<SplitDevice>(0).complete(vq, from, n, written);
  }
  publish(vq: usize): void {
    if (Device.isPacked(vq)) changetype<PackedDevice>(0).publish(vq);
    else changetype<SplitDevice>(0).publish(vq);
  }
}
