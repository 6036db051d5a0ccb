"""What is to be done, known before TensorFlow is imported.

A pipeline file is read into frozen dataclasses (`settings`, `refs`, `sources`, `stages`), every
stage gets a folder by the hash of all that decides what it makes (`store`), and `pipeline` plans
and builds.  `stages` alone calls the rooms that do the work, from inside `run`.
"""
