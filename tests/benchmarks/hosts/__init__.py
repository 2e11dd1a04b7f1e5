"""Several hosts for real: network namespaces as hosts, cut off or killed one after another under load.

    sudo .venv/bin/python -m tests.benchmarks.hosts

hosts.py     namespaces, their links, what runs in them
__main__.py  the load, the faults, what must hold, and how long each recovery took

Needs root, iproute2 and socat. Minutes long: run by hand.
"""
