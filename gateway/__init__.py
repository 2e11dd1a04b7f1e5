"""HybridMed Gateway: DICOM in and out, studies, jobs, web, command line. No torch is imported here.

association.py  pynetdicom events in, DIMSE status out
header.py       the fields that are indexed, read from a data set's header
spool.py        one instance to disk: temporary file, fsync, rename; what a restart finds
indexer.py      stored instances -> rows, in batches
study.py        when a study is complete (pure; the clock is passed in)
routing.py      which bundles a study wants (pure)
job.py          a job's states and allowed transitions (pure)
dispatcher.py   complete studies -> jobs; outbox -> broker; leases that ran out
broker.py       Broker protocol; the embedded one
rabbitmq.py     the RabbitMQ one, on pika
worker.py       claim, load, infer, render, commit, acknowledge last
report/         findings -> SR, SEG, heat map, pictures
delivery.py     results to destinations by C-STORE or STOW-RS
store/          the database
web/            HTTP: FHIR mounted, health, metrics, study pages
services.py     roles, heartbeats, counters
supervisor.py   `serve`: roles as processes, restarted with back-off, drained on SIGTERM
doctor.py       checks every part and says what to do
demo.py         sample studies in, results out
cli.py          the command line; cli_*.py hold its groups
config.py errors.py log.py
wiring.py       builds the real parts from the settings
testing.py      shipped fakes, which pass the contract tests of the real parts
samples/        three de-identified chest X-rays for `hybridmed demo`
"""

from importlib.metadata import version

__version__ = version("hybridmed-gateway")
