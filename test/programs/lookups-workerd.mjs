// Lookups where modules are imported, since no bytes can be compiled, and where there is one thread.
import byMac from "../../dist/lookup/by-mac.wasm";
import { replaced } from "./lookups-body.mjs";

export default () => replaced(byMac);
