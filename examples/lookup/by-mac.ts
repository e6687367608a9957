/**
 * A lookup for iovtee's switch, in AssemblyScript: netmap's VALE, whose table is hashed, one place for each hash. The learning
 * bridge of the switch is asked for what isn't in the table.
 *
 *     asc by-mac.ts --runtime stub --importMemory --noExportMemory --initialMemory 1 --maximumMemory 65536 -O3 -o by-mac.wasm
 *
 * and for a host with lcores on workers, whose memory is shared, with --sharedMemory --enable threads. It holds nothing but
 * its state, so that the switch can move from one thread to another.
 */

/** A place in the table: the address, which has 48 bits, and above it 1 + the port. */
const PLACES: u32 = 1024;
const ADDRESS: u64 = 0xffff_ffff_ffff;
/** Leave it to the learning bridge. */
const NORMAL: u16 = 0xfffc;

/** Bytes of state that each switch gives it, zeros at first. */
export const stateBytes: i32 = PLACES * 8;

/** Multiplicative hash, the offset of its place. */
function placeOf(mac: u64): u32 {
  return <u32>((mac * 0x9e37_79b9_7f4a_7c15) >> 54) * 8;
}

/** Where the `frames` frames go that came in by `port`. */
export function lookup(
  state: usize,
  port: u32,
  frames: u32,
  packets: usize,
  first: usize,
  headers: usize,
  destinations: usize,
): void {
  let last: u64 = 0;
  for (const end = headers + frames * 16; headers != end; headers += 16, destinations += 2) {
    const source = load<u64>(headers, 4) >> 16;
    if (source != last && !(source & 1)) {
      store<u64>(state + placeOf(source), source | ((<u64>(port + 1)) << 48));
      last = source;
    }
    const mac = load<u64>(headers) & ADDRESS;
    const known = load<u64>(state + placeOf(mac));
    store<u16>(destinations, (known & ADDRESS) == mac && known ? <u16>(known >> 48) - 1 : NORMAL);
  }
}
