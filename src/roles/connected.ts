/** What is connected, and to what: nobody else may take from its queues, on whichever lcore. */
export const connected = new WeakMap<object, { readonly name: string }>();
