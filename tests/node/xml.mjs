// Reads and writes FHIR XML with a library that shares no code with the server.
//
// In: a JSON file with a list of {json, xml}. Out: a list of {json, xml}: the resource that the library read from the
// XML, and the XML that it wrote from the JSON.

import { readFileSync } from "node:fs";
import fhir from "fhir";

const converter = new fhir.Fhir();
const given = JSON.parse(readFileSync(process.argv[2], "utf-8"));
const made = given.map(({ json, xml }) => ({ json: converter.xmlToObj(xml), xml: converter.objToXml(json) }));
process.stdout.write(JSON.stringify(made));
