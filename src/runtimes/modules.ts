/**
 * Modules for runtimes that are given them one by one: a browser that asks for their URLs, a workerd with a list of them.
 * The package's own names (`iovtee`, `#platform`) become paths, as its package.json says for the runtime's conditions;
 * everything else stays as it was built. Paths: `/package/` is the package, `/program/` the folder of a program that isn't in it.
 */
import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join, normalize, posix, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** Folder of the package: the nearest one above this file whose package.json is iovtee's. */
export function packageFolder(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const file = join(folder, "package.json");
    if (existsSync(file) && JSON.parse(readFileSync(file, "utf8")).name === "iovtee") return folder;
    if (folder === dirname(folder)) throw new Error(`${import.meta.url}: not in the package iovtee`);
  }
}

/** `import … from "…"`, `export … from "…"`, `import "…"` and `import("…")`. */
const SPECIFIER = /((?:[\s}*]from|^import|\bimport\()\s*)"([^"\s]+)"/gm;

export class Modules {
  readonly #package = packageFolder();
  readonly #program: string;
  readonly #names: Record<string, unknown>;
  /** Path of the program's module. */
  readonly program: string;

  /**
   * @param program file of the program's module
   * @param conditions of the runtime, as in package.json's `imports` and `exports`
   */
  constructor(
    program: string,
    readonly conditions: readonly string[],
  ) {
    this.#program = dirname(program);
    const inPackage = relative(this.#package, program);
    this.program = inPackage.startsWith("..")
      ? `/program/${basename(program)}`
      : `/package/${inPackage.split(sep).join("/")}`;
    const { name, exports, imports } = JSON.parse(readFileSync(join(this.#package, "package.json"), "utf8"));
    const own = Object.entries(exports).map(([path, to]): [string, unknown] => [posix.join(name, path), to]);
    this.#names = { ...imports, ...Object.fromEntries(own) };
  }

  /** The file at a path; undefined where there is none. JavaScript comes with the package's names as paths. */
  read(path: string): string | Buffer | undefined {
    const [, root, rest = ""] = /^\/(package|program)\/(.+)$/.exec(path) ?? [];
    const folder = root === "package" ? this.#package : this.#program;
    const file = normalize(join(folder, rest));
    if (!root || !file.startsWith(folder + sep) || !existsSync(file)) return undefined;
    return /\.m?js$/.test(file) ? this.#withPaths(readFileSync(file, "utf8")) : readFileSync(file);
  }

  /**
   * What a module imports, directly or through others, itself included, by path.
   * @throws Error for a file that there isn't
   */
  graph(path: string, found = new Map<string, string | Buffer>()): Map<string, string | Buffer> {
    if (found.has(path)) return found;
    const source = this.read(path);
    if (source === undefined) throw new Error(`${path}: no such module`);
    found.set(path, source);
    if (typeof source !== "string") return found;
    for (const [, , name = ""] of withoutComments(source).matchAll(SPECIFIER)) {
      this.graph(name.startsWith(".") ? posix.join(posix.dirname(path), name) : name, found);
    }
    return found;
  }

  #withPaths(source: string): string {
    return source.replace(SPECIFIER, (all, before: string, name: string) => {
      const to = this.#target(this.#names[name]);
      return to === undefined ? all : `${before}"${posix.join("/package", to)}"`;
    });
  }

  /** The path that the conditions choose. */
  #target(choices: unknown): string | undefined {
    if (typeof choices !== "object") return choices as string | undefined;
    const chosen = Object.entries(choices as Record<string, string>).find(
      ([condition]) => condition === "default" || this.conditions.includes(condition),
    );
    return chosen?.[1];
  }
}

function withoutComments(source: string): string {
  return source.replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
}
