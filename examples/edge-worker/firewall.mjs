// A capture through a firewall guest, in pieces: nothing here knows how long the capture is.
import { CaptureDecoder, CaptureEncoder, Host, parseMac } from "iovtee";

/** Frames on their way at a time: a card's ring of 256 buffers holds as many of the longest ones. */
const BURST = 32;
/** Bytes of a piece that is given out. */
const PIECE = 64 * 1024;
/** Bytes in front of a frame in a pcap. */
const RECORD_HEADER = 16;

/**
 * The frames that the rules allow, as they were captured, as a pcap in pieces.
 * @param {AsyncIterable<Uint8Array>} capture a pcap or pcapng; a chunk is done with when the next one is asked for
 * @param {import("iovtee").FirewallRule[]} rules
 * @param {(counted: { frames: number, allowed: number }) => void} counted told at the end
 * @returns {AsyncGenerator<Uint8Array>}
 * @throws CaptureError where the capture breaks. If a piece has been given out, all that was allowed before the break is,
 * and then a part of a record's header: so the pcap breaks, too, for whoever doesn't hear of the error
 */
export async function* firewall(capture, rules, counted = () => {}) {
  const host = await Host.create({ memory: 8 * 2 ** 20, buffers: 1024 });
  const nic = host.nic({ queues: 2 });
  const guest = host.guest({ run: "firewall", rules });
  host.vswitch({ connect: [nic, guest] });
  const mac = new Uint8Array(new BigUint64Array([parseMac(guest.mac)]).buffer, 0, 6);

  const decoder = new CaptureDecoder("capture");
  const encoder = new CaptureEncoder();
  let [frames, allowed, given] = [0, 0, 0];
  let piece = new Uint8Array(PIECE);
  piece.set(encoder.header());
  let used = encoder.header().length;

  try {
    for await (const chunk of capture) {
      decoder.push(chunk);
      for (let burst = next(decoder); burst.length > 0; burst = next(decoder)) {
        frames += burst.length;
        for (const i of pass(nic, host, mac, burst)) {
          const { data, timestamp } = burst[i];
          if (used + RECORD_HEADER + data.length > PIECE) {
            yield piece.subarray(0, used);
            given++;
            piece = new Uint8Array(PIECE);
            used = 0;
          }
          used = encoder.append(piece, used, data, timestamp);
          allowed++;
        }
      }
    }
    decoder.end();
  } catch (error) {
    if (given > 0) {
      const last = new Uint8Array(used + RECORD_HEADER / 2);
      last.set(piece.subarray(0, used));
      yield last;
      yield new Uint8Array(1); // workerd drops the piece in front of an error
    }
    throw error;
  }
  yield piece.subarray(0, used);
  counted({ frames, allowed });
}

/**
 * The next frames. Where the capture breaks: those before it, then the error.
 * @param {CaptureDecoder} decoder
 */
function next(decoder) {
  const burst = [];
  try {
    while (burst.length < BURST) {
      const frame = decoder.next();
      if (!frame) break;
      burst.push(frame);
    }
  } catch (error) {
    if (burst.length === 0) throw error; // asked again, the decoder throws it again
  }
  return burst;
}

/**
 * Which frames come back, in order. On the wire they have the guest's address as destination, and as source their number
 * in the burst, to which the guest answers.
 * @param {import("iovtee").Nic} nic
 * @param {Host} host
 * @param {Uint8Array} mac the guest's
 * @param {import("iovtee").CapturedFrame[]} burst
 */
function pass(nic, host, mac, burst) {
  // The decoder's own bytes, without a copy: the card copies them into the host's memory, then they are put back.
  const addresses = burst.map(({ data }) => data.slice(0, 12));
  burst.forEach(({ data }, i) => {
    data.set([...mac, 2, 0, 0, 0, 1, i].slice(0, data.length));
  });
  nic.receive(burst.map(({ data }) => data));
  burst.forEach(({ data }, i) => {
    data.set(addresses[i]);
  });
  host.drain();
  /** @type {number[]} */
  const back = [];
  nic.transmit((sent) => back.push(...sent.map((frame) => frame[5])));
  return back;
}
