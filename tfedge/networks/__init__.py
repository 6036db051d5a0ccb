"""Keras networks: the one Keras that tfedge uses, how its models are saved, and changes to them.

Everything that takes a model and returns another without training it lives here.
"""
