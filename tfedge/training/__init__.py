"""Whatever changes weights: the one `fit`, the Distiller, pruning and quantization-aware training.

A function here takes a Keras model and a `Course` and returns a Keras model; nothing here knows of
pipelines or of .tflite files.
"""
