"""How the index behaves as it grows by tens, on PostgreSQL: `python -m tests.benchmarks.scale --largest 1000000`.

Rows are made by the database itself; what is timed goes through the program's own functions: ingest, lookup, worklist,
QIDO-RS's query, and a job from its making to its claim.
"""
