// A program that fails, for test/runtimes.test.ts.

/** @param {string} message */
export default function throws(message) {
  throw new Error(message);
}
