// A thread that is killed, for test/runtimes.test.ts: how far it comes after that. Two guests send each other a frame for ever.
import { Host } from "iovtee";

export default async function killed() {
  const host = await Host.create({ shared: true });
  const macs = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
  const guests = macs.map((mac, i) => host.guest({ attach: "vhost", mac, nextHop: macs[1 - i] }));
  const port = host.port();
  const sw = host.vswitch({ connect: [port, ...guests] });
  const { done } = await host.launch([[sw, ...guests]]);
  const ended = done.catch((error) => error);
  const frame = new Uint8Array(60);
  frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x99, 0x88, 0xb5]);
  port.push([frame]);
  const received = () => host.stats().guests[0]?.received ?? 0;
  while (received() < 1000) await new Promise((resume) => setTimeout(resume, 1));
  // Who hears of a death stops the other lcores: this one is to be ended, not to stop as it is told.
  host.stop = () => {};
  const before = received();
  await host.lcores[0]?.kill();
  const at = received();
  for (const end = performance.now() + 200; performance.now() < end; ) {}
  const after = received();
  const { message, recovered } = await ended;
  return { before, at, after, message, recovered };
}
