// The lookup of by-mac.ts in JavaScript: iovtee pvp --lookup examples/lookup/by-mac.mjs
// Called once for a burst. It reads and writes typed arrays only: nothing is allocated.

const PLACES = 1024;
/** Leave it to the learning bridge: `NORMAL` of "iovtee". */
const NORMAL = 0xfffc;

/**
 * A lookup for one switch, with a table of its own.
 * @returns {(burst: { length: number, port: number, words: Int32Array, destinations: Uint16Array }) => void}
 */
export default function createLookup() {
  // An address, low four bytes and high two, and 1 + its port.
  const low = new Int32Array(PLACES);
  const high = new Uint16Array(PLACES);
  const ports = new Uint16Array(PLACES);

  return ({ length, port, words, destinations }) => {
    let lastLow = 0;
    let lastHigh = 0;
    for (let i = 0, w = 0; i < length; i++, w += 4) {
      const middle = /** @type {number} */ (words[w + 1]); // two bytes of the destination, then two of the source
      const rest = /** @type {number} */ (words[w + 2]);
      const sourceLow = (middle >>> 16) | (rest << 16);
      const sourceHigh = rest >>> 16;
      if ((sourceLow !== lastLow || sourceHigh !== lastHigh) && (sourceLow & 1) === 0) {
        const at = placeOf(sourceLow, sourceHigh);
        low[at] = sourceLow;
        high[at] = sourceHigh;
        ports[at] = port + 1;
        lastLow = sourceLow;
        lastHigh = sourceHigh;
      }
      const macLow = /** @type {number} */ (words[w]);
      const macHigh = middle & 0xffff;
      const at = placeOf(macLow, macHigh);
      const known = low[at] === macLow && high[at] === macHigh ? /** @type {number} */ (ports[at]) : 0;
      destinations[i] = known > 0 ? known - 1 : NORMAL;
    }
  };
}

/**
 * Multiplicative hash.
 * @param {number} macLow
 * @param {number} macHigh
 */
function placeOf(macLow, macHigh) {
  return Math.imul(macLow ^ (macHigh * 0x85eb), 0x9e3779b1) >>> 22;
}
