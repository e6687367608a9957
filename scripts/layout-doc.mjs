// docs/layout.md from assembly/layout.ts: every structure in memory, its fields and their offsets.
//   node scripts/layout-doc.mjs           writes it
//   node scripts/layout-doc.mjs --check   exit status 1 when it is not what would be written
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const SOURCE = "assembly/layout.ts";
const PAGE = "docs/layout.md";
process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const file = ts.createSourceFile(SOURCE, readFileSync(SOURCE, "utf8"), ts.ScriptTarget.Latest, true);

/**
 * The text of a node's doc comment, its lines without stars.
 * @param {import("typescript").Node} node
 */
function doc(node) {
  const comment = ts.getJSDocCommentsAndTags(node).at(-1)?.getText() ?? "";
  return comment
    .replace(/^\/\*\*|\*\/$/g, "")
    .split("\n")
    .map((line) => line.replace(/^\s*\* ?/, ""))
    .join("\n")
    .trim();
}
/** @param {string} text */
const cell = (text) => text.replace(/\s+/g, " ").replaceAll("|", "\\|");

const lines = [
  "# Layout",
  "",
  `Made from \`${SOURCE}\` by \`node scripts/layout-doc.mjs\`; change that file, not this one. Numbers in memory are`,
  "little-endian u32 unless something else is said. A field's number is its offset in bytes.",
];
for (const node of file.statements) {
  if (ts.isEnumDeclaration(node)) {
    lines.push("", `## ${node.name.text}`, "", doc(node), "", "| field | | |", "| --- | ---: | --- |");
    for (const member of node.members) {
      const value = member.initializer?.getText() ?? "";
      lines.push(`| ${member.name.getText()} | ${cell(value)} | ${cell(doc(member))} |`);
    }
  } else if (ts.isVariableStatement(node)) {
    for (const { name, initializer } of node.declarationList.declarations) {
      lines.push("", `## ${name.getText()}`, "", `${doc(node)} \`${initializer?.getText()}\``.trim());
    }
  }
}
const page = `${lines.join("\n").replace(/\n{3,}/g, "\n\n")}\n`;
if (!process.argv.includes("--check")) writeFileSync(PAGE, page);
else if (readFileSync(PAGE, "utf8") !== page) {
  console.error(`${PAGE} is not what ${SOURCE} says: run node scripts/layout-doc.mjs`);
  process.exit(1);
}
