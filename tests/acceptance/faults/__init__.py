"""Faults at random moments under load, and a model that knows what must be there afterwards.

`python -m tests.acceptance.faults --faults 200 --report FILE` runs a whole gateway, disturbs it and holds it to what
it answered: every C-STORE success, every result that arrived. The same seed chooses the same faults in the same order.

ledger.py     what the gateway answered and what arrived: the model
load.py       modalities that send studies, and send again what was not answered
pacs.py       the destination: takes results, or refuses, hangs and dawdles
proxy.py      TCP between the gateway and a peer, to reset, refuse, stall, slow down and half-close
site.py       everything that runs; disk.py  its file system; servers.py  its own PostgreSQL and RabbitMQ
preload.py    C libraries in the gateway: clock.py  its time of day; power.py  what of its writes outlives the power
device.py     a worker's device, which fails on order
fault.py      what a fault is; killing.py, hanging.py, peers.py, storage.py, services.py, clocks.py  the faults
retention.py  studies removed meanwhile; catalogue.py  all faults
sign.py       by what a fault is seen
watch.py      /readyz, /metrics and doctor: is it seen, is it over
campaign.py   faults in rounds, singly and in pairs
verdict.py    lost, doubled, stuck: model against disk, database, queue, PACS and FHIR
report.py     what came of it, as JSON
"""
