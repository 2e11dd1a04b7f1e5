// What fhir-kit-client sees of the server whose address is given: printed as JSON.
import { Client } from 'fhir-kit-client';

const client = new Client({ baseUrl: process.argv[2] });
const ids = (bundle, mode = 'match') =>
  (bundle.entry ?? []).filter((each) => each.search.mode === mode).map((each) => each.resource.id);

const pages = [];
let page = await client.search({ resourceType: 'DiagnosticReport', searchParams: { _count: 2, _sort: 'date' } });
while (page) {
  pages.push(ids(page));
  page = await client.nextPage({ bundle: page });
}
const report = await client.read({ resourceType: 'DiagnosticReport', id: 'rep-1' });
const included = await client.search({
  resourceType: 'DiagnosticReport',
  searchParams: { _id: 'rep-1', _include: 'DiagnosticReport:result' },
});
const counted = await client.search({ resourceType: 'DiagnosticReport', searchParams: { _summary: 'count' } });
const posted = await client.search({
  resourceType: 'DiagnosticReport',
  searchParams: { 'patient.identifier': 'P-2' },
  options: { postSearch: true },
});
const batch = await client.batch({
  body: { resourceType: 'Bundle', type: 'batch', entry: [{ request: { method: 'GET', url: 'Patient/pat-1' } }] },
});
console.log(
  JSON.stringify({
    version: (await client.capabilityStatement()).fhirVersion,
    pages,
    subject: (await client.resolve({ reference: report.subject.reference })).name[0].family,
    included: ids(included, 'include'),
    count: counted.total,
    posted: ids(posted),
    history: (await client.history({ resourceType: 'DiagnosticReport', id: 'rep-1' })).total,
    vread: (await client.vread({ resourceType: 'DiagnosticReport', id: 'rep-1', version: '1' })).id,
    batch: batch.entry[0].response.status,
  }),
);
