"""Studies that have had their time are removed.

policy.py  which studies go, and why (pure)
purge.py   a study goes: its rows in one transaction, then its files
role.py    does it by itself, in the role `dispatch`

```
one transaction     rows of the study go; its files' paths become rows of `removal`; the audit trail says so
for each removal    nobody names the file any more: unlink; the row goes
```

A kill between any two steps leaves rows of `removal`, which the next look works off. A study that comes again while its
files go is a new study: the indexer takes the paths that it needs out of `removal` in its own transaction.
"""
