"""The .tflite file: the whole contract between the workstation and the board.

`conversion` makes one from a Keras model.  `card` puts in what the file says about itself (labels,
preprocessing, golden vectors) and reads it back, `metadata` says the same in the standard form that
MediaPipe and Android read.  `facts` tells what is in any .tflite (built on `container`, `graph` and
`counts`), and `inspection` prints it.  Only `conversion` imports TensorFlow.
"""
