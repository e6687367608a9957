/** What counts of many times of the same work. */

/** The value that the share `part` of the others is below: 0.5 is the median, but that it is one of the values. */
export function percentile(values: readonly number[], part: number): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length * part)] as number;
}

/** The 25th percentile: most of what another program disturbed is left out. */
export function lowerQuartile(values: readonly number[]): number {
  return percentile(values, 0.25);
}
