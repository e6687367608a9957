/** Receive side scaling: which entry of a table of queues a frame's flow falls to. */
import { Toeplitz } from "./hash";
import { FlowKey, Nic, RSS_TABLE_SIZE } from "./layout";
import { Parse } from "./parse";

export class Rss {
  /**
   * The entry, by the Toeplitz hash under the card's key; -1 for what isn't IP. `scratch` has room for a FlowKey and what
   * is hashed of it.
   */
  static entry(nic: usize, frame: usize, len: u32, scratch: usize): i32 {
    if (!Parse.flow(frame, len, scratch)) return -1;
    const hash = Toeplitz.flow(load<u32>(nic, Nic.rssKey), scratch, scratch + FlowKey.SIZE);
    return <i32>(hash & (RSS_TABLE_SIZE - 1));
  }
}
