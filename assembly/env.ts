/** What the core imports besides its memory, from the module that has this file's name. */

/**
 * A lookup in JavaScript, called once for a burst: the address of the switch, the number of the port that it came in by,
 * and its frames.
 */
export declare function lookup(sw: usize, port: u32, frames: u32): void;
