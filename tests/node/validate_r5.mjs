// Checks FHIR R5 resources against the R5 types of DefinitelyTyped, which are made from the R5 definitions: unknown
// elements, missing elements, wrong types and wrong codes are errors of the TypeScript compiler.
//
// In: a JSON file with a list of resources. Out: a list of sentences as JSON, empty when all is well.

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const folder = dirname(fileURLToPath(import.meta.url));
const resources = JSON.parse(readFileSync(process.argv[2], "utf-8"));
const lines = resources.map((each, at) => `const r${at}: import("fhir/r5").${each.resourceType} = ${JSON.stringify(each)};`);
const name = join(folder, "resources.ts");
const options = { noEmit: true, strict: true, types: ["fhir"], typeRoots: [join(folder, "node_modules", "@types")] };
const host = ts.createCompilerHost(options);
const read = host.getSourceFile;
host.getSourceFile = (path, ...rest) =>
  path === name ? ts.createSourceFile(path, lines.join("\n"), ts.ScriptTarget.ES2022) : read(path, ...rest);
const exists = host.fileExists;
host.fileExists = (path) => path === name || exists(path);
const program = ts.createProgram([name], options, host);
const complaints = ts.getPreEmitDiagnostics(program).map((each) => {
  const line = each.file && each.start !== undefined ? each.file.getLineAndCharacterOfPosition(each.start).line : -1;
  return `${resources[line]?.resourceType ?? "compiler"}: ${ts.flattenDiagnosticMessageText(each.messageText, " ")}`;
});
process.stdout.write(JSON.stringify(complaints));
