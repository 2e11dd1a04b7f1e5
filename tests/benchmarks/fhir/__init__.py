"""The FHIR server beside a bare route over the same database: `python -m tests.benchmarks.fhir`."""
