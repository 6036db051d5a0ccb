"""The .tflite file: the whole contract between the workstation and the board.

`making` does the work of the convert stage: `calibration` and `conversion` make a file from a Keras
model, `ranges`, `correction` and `repair` better it, `mixing` takes layers out of int8, `gates`
refuse what is not as asked.  `comparison` (on `flow`, `names`, `running` and `attribution`) says
which layer lost what.  `card` puts in what the file says about itself (labels, preprocessing,
golden vectors) and reads it back, `metadata` says the same in the standard form that MediaPipe and
Android read.  `facts` tells what is in any .tflite (built on `container`, `graph` and `counts`),
and `inspection` prints it.
"""
