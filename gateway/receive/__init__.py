"""The fast path of the Storage SCP: P-DATA goes from the receive buffer to the file, and nobody polls.

reactor.py        pynetdicom's two threads of an association, blocking where the library sleeps and looks again
peer_buffer.py    the connection's receive buffer
data_transfer.py  P-DATA-TF PDUs -> fragments, as they come
command.py        C-STORE request and response, by hand
operation.py      a C-STORE operation from its request to its answer
handler.py        one connection over this path
lobby.py          connections without an association yet: bounded in all and for each address
slots.py          the limit of associations over all receiving processes of a host
contexts.py       the presentation contexts that are accepted

Negotiation, state machine, release, abort and every message but C-STORE stay pynetdicom's.
"""
