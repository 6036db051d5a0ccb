"""Channels taken out of a network: which go together, what they are worth, and the surgery.

Three levels, each of use alone.  `following` and `groups` say which channels of which layers stand
and fall together; `scores`, `costs` and `amounts` say which are worth least, what they cost and how
many are to go; `surgery` makes the network without them.
"""
