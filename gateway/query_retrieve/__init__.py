"""C-FIND, C-MOVE and C-GET SCP, patient root and study root (PS3.4 annex C).

model.py        the information models: levels, unique keys, identifiers
negotiation.py  relational queries and fuzzy matching, where asked for
find.py         C-FIND: queries of gateway.query, answered page by page; answer.py  identifiers, both ways
retrieve.py     C-MOVE and C-GET: sub-operations and their counters; selection.py  what they ask for; response.py
store_user.py   C-STORE from disk to the network; destination.py  associations to move destinations
recode.py       uncompressed data sets in another encoding; decode.py  compressed ones uncompressed
"""

from gateway.query_retrieve.find import FindService
from gateway.query_retrieve.retrieve import RetrieveService, Retrieving

__all__ = ["FindService", "RetrieveService", "Retrieving"]
