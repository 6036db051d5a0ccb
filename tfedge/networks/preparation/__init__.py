"""Rewrites of a network's graph into one that tfmot and the TFLite converter take.

Each pass changes a `Graph` in place and returns how often it did; `preparing` runs them in order
and proves each on data.
"""
