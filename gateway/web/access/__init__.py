"""Who may ask over HTTP: how a caller is known, and what it may do. `gateway/web/auth.py` asks for both.

routes.py     which role each address takes
callers.py    a request -> its `Caller`: the loopback, a bearer token, a session
tokens.py     tokens of commands, of registered clients and of the settings
guard.py      all of these, built for one application
oidc.py       OpenID Connect: access tokens, and the authorization code flow; claims.py  what its claims say;
              browser.py  the sign-in of browsers by it
signed.py     JSON Web Tokens checked (pure); keys.py  the public keys of others
smart.py      SMART Backend Services: the token endpoint; assertion.py  what a client proves itself by
limits.py     how often a caller and an address may ask; shared.py  over all web processes of a host
cors.py       scripts of other sites, by allow-list
"""
