/** A WebAssembly file that is imported is a compiled module, in workerd and in bundles for it. */
declare module "*.wasm" {
  const module: WebAssembly.Module;
  export default module;
}
