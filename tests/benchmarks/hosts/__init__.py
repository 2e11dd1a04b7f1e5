"""Several hosts for real: network namespaces as hosts, cut off, killed or without power, one after another under load.

    sudo .venv/bin/python -m tests.benchmarks.hosts                    (or: sudo make hosts)

Two receivers, two hosts that dispatch and deliver, three workers; PostgreSQL, RabbitMQ (one node, or a cluster of
three) and the bucket, each on a host of its own. The modalities and the PACS stand outside. After each fault everything
that was acknowledged is compared with database, bucket and PACS; `hosts.json` has all figures.

site.py      everything that runs
faults.py    what is done to a host, and what must go on meanwhile
campaign.py  one fault after another, and how long each recovery took
report.py    the table, and JSON

Needs root, iproute2, PostgreSQL and RabbitMQ. It takes a quarter of an hour, most of it waiting for
hosts that are away, and is no part of `make test` for that; a short form is `tests/integration/test_vanished_hosts.py`.
"""
