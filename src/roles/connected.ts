/** What is connected, and to which switch or bridge: nobody else may take from its queues, on whichever lcore. */
export const connected = new WeakMap<object, { readonly name: string }>();
