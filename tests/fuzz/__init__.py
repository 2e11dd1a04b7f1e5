"""Broken input for the gateway: `python -m tests.fuzz [--inputs 100000] [--seed N] [--part dicom] [--report FILE]`.

corpus.py   whole data sets to begin with: made ones, and the odd files where they are at hand
requests.py whole requests to the DIMSE services besides storage; receiver.py  a receiver that offers all of them
changes.py  changes of bytes, whatever they mean
mutation.py data sets, commands and PDUs, broken with a seed
peer.py     a hand-made sender: writes any bytes, and says how the receiver ended it
target.py   a receiver as a process, over the fast or the stock path; its memory and its books
campaign.py the same inputs to both paths, compared
web/        the same for requests to the role `web`
report.py   what a run found so far, as a file from which it goes on
"""
