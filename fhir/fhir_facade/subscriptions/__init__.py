"""Subscriptions: R4's rest-hook, and the topic-based ones of the R5 backport for R4 (Subscriptions R5 Backport 1.1).

topic.py         the topics that there are
request.py       a Subscription as a client sends it -> what it wants, checked
notification.py  status, handshake, heartbeat and events -> Bundles
matcher.py       committed versions -> events of those whose criteria they meet
standing.py      a subscription's status -> the next version of its resource
notifier.py      the loop that tells endpoints, in the role `deliver`
routes.py        create, update, delete, $status, $events
"""
