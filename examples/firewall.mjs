// Passes a capture through a firewall guest: node examples/firewall.mjs RULES IN.pcap OUT.pcap
// What the rules allow comes out, in order; MAC addresses are those of the way through the guest and back.
import { readFileSync } from "node:fs";
import { CaptureWriter, Host, parseMac, parseRules, readCapture } from "iovtee";

const [rules, input, output] = process.argv.slice(2);
if (!rules || !input || !output) {
  console.error("usage: node examples/firewall.mjs RULES IN.pcap OUT.pcap");
  process.exit(2);
}

const host = await Host.create();
const nic = host.nic();
const guest = host.guest({ run: "firewall", rules: parseRules(readFileSync(rules, "utf8")) });
host.vswitch({ connect: [nic, guest] });

const mac = new Uint8Array(new BigUint64Array([parseMac(guest.mac)]).buffer, 0, 6);
const writer = new CaptureWriter(output);
let [read, passed] = [0, 0];
for (const { data, timestamp } of readCapture(input)) {
  const frame = Uint8Array.from(data);
  frame.set(mac); // the switch sends it to the guest
  nic.receive([frame]);
  host.drain();
  passed += nic.transmit((frames) => {
    writer.write(frames, timestamp);
  });
  read++;
}
writer.close();
console.log(`${read} frames, ${passed} allowed, ${read - passed} denied`);
