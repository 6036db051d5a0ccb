"""The data that a pipeline learns from: found, checked, split, and decoded once into memory maps.

`photos.open_folder` and `arrays.open_arrays` both answer with a `dataset.Data`.  Below them lie the
listing of a folder, the fingerprint of its contents, the choice of splits and the memory-mapped
files.  Nothing here imports TensorFlow; augmentation, which needs it, is elsewhere.
"""
