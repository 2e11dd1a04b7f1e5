"""Broken input for the receiver: `python -m tests.fuzz [--count 100000] [--seed N]`.

corpus.py   whole data sets to begin with: made ones, and the odd files where they are at hand
mutation.py data sets, commands and PDUs, broken with a seed
peer.py     a hand-made sender: writes any bytes, and says how the receiver ended it
target.py   a receiver as a process, over the fast or the stock path; its memory and its books
campaign.py the same inputs to both paths, compared
"""
