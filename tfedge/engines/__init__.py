"""Other inference engines beside LiteRT: what they make of a .tflite, and how long they take.

Each runs in processes of its own, for two runtimes in one collide; `child.py` is all that runs in
there.
"""
