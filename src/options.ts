/** Checks of the options that public functions take. */

/** @throws RangeError naming the option */
export function powerOfTwo(name: string, value: number, most: number, least = 1): number {
  if (!Number.isInteger(value) || value < least || value > most || value & (value - 1)) {
    const range = least > 1 ? `from ${least} to ${most}` : `up to ${most}`;
    throw new RangeError(`${name}: ${value}, expected a power of two ${range}`);
  }
  return value;
}

/** @throws RangeError naming the option */
export function integer(name: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`${name}: ${value}, expected ${least} to ${most}`);
  }
  return value;
}
