"""The command line: `hybridmed`.

app.py      the commands, their groups and exit codes
lists.py    studies, jobs, dead, deliveries
actions.py  verify, studies stat, deliveries resend
bundles.py  bundles, train, evaluate, calibrate, compress
viewer.py   the viewer, brought once
running.py  serve, send, reprocess, demo, db, doctor
audit.py    the audit trail; purge.py  retention; privacy.py  from a pseudonym back to the patient
operate.py  health, backup, restore, evidence, support
output.py   tables and JSON

Exit codes: 0 done, 1 failed, 2 usage or settings, 3 not found, 4 a service is away.
"""

from gateway.cli.app import main

__all__ = ["main"]
