// An emulator's network card on a switch: node examples/network-card.mjs
// The emulator's side is JavaScript: it pushes frames into a port and takes those for it out. Behind another port is
// a guest that answers ARP and ping.
import { formatMac, Host, parseMac } from "iovtee";

const host = await Host.create();
const card = host.port();
const guest = host.guest({ attach: "vhost", run: "echo", ipv4: "10.0.0.2" });
host.vswitch({ connect: [card, guest] });

/** @param {string} mac */
const bytesOf = (mac) => new Uint8Array(new BigUint64Array([parseMac(mac)]).buffer, 0, 6);
const me = "02:00:00:00:00:99";

// Who has 10.0.0.2? Tell 10.0.0.1 (RFC 826).
const request = new Uint8Array(60);
request.set(bytesOf("ff:ff:ff:ff:ff:ff"), 0);
request.set(bytesOf(me), 6);
request.set([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1], 12);
request.set(bytesOf(me), 22);
request.set([10, 0, 0, 1], 28);
request.set([10, 0, 0, 2], 38);

card.push([request]);
host.drain();
card.take((frames) => {
  for (const frame of frames) {
    const mac = formatMac(
      new DataView(frame.buffer, frame.byteOffset).getBigUint64(22, true) & 0xffffffffffffn,
    );
    console.log(`10.0.0.2 is at ${mac}`);
  }
});
