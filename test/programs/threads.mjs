// The main job on two threads, for test/runtimes.test.ts.
import { pvp } from "iovtee";

export default function threads() {
  return pvp({ size: [64], packets: 2000, repeat: 1, lcores: ["nic+host", "guest"] });
}
