"""What operators do on good and bad days.

dump.py      all tables to files and back, whatever the database
backup.py    tables and files into a folder; restore, and the drill that proves it
reindex.py   instances on disk that a database which was set back has forgotten
evidence.py  everything about one study
support.py   what those who help need to know, without patient data
"""
