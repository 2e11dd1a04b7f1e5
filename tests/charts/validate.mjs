// Checks Kubernetes manifests against the schemas of their kinds: node validate.mjs FILE, a JSON
// list of them; prints complaints as JSON.
import { readFileSync } from "node:fs";

const WITHOUT_SCHEMA = new Set(["monitoring.coreos.com/v1/ServiceMonitor"]);

async function modelOf({ apiVersion, kind }) {
  const source = apiVersion.startsWith("keda.sh/") ? "@kubernetes-models/keda" : "kubernetes-models";
  const module = await import(`${source}/${apiVersion}/${kind}`);
  return module[kind];
}

const complaints = [];
for (const manifest of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  const name = `${manifest.kind} ${manifest.metadata?.name}`;
  if (WITHOUT_SCHEMA.has(`${manifest.apiVersion}/${manifest.kind}`)) continue;
  try {
    const Model = await modelOf(manifest);
    new Model(manifest).validate();
  } catch (error) {
    complaints.push(`${name}: ${error.message}`);
  }
}
console.log(JSON.stringify(complaints));
