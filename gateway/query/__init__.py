"""What can be asked of the gateway, by QIDO-RS, C-FIND and whoever retrieves; no HTTP and no DIMSE in here.

objects.py     objects by UID, with the place of their files
search.py      find(connection, Query) -> matches
model.py       Query, Match
attributes.py  which attributes are matched and returned, level by level
criteria.py    what a key's value asks for (PS3.4 C.2.2.2); conditions.py  the same in SQL
levels.py      where the entities of a level stand; plan.py  a query -> one statement
narrowing.py   rare names and modalities: the few studies that have them
tally.py       counts, modalities and SOP classes of studies and series
visible.py     which objects are shown: received ones and our own results, without the rejected
"""

from gateway.query.attributes import Attribute, Level, matching_tags, return_tags
from gateway.query.model import Match, Query, Value
from gateway.query.objects import StoredObject, locate, locate_many
from gateway.query.search import find

__all__ = [
    "Attribute",
    "Level",
    "Match",
    "Query",
    "StoredObject",
    "Value",
    "find",
    "locate",
    "locate_many",
    "matching_tags",
    "return_tags",
]
