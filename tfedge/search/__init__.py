"""Find the networks that fit: candidates proposed, looked at untrained, and trained in rungs.

`table` reads what a pipeline frees and `base` what stays, `proposals` asks Optuna for candidates,
`looking` says what one costs before it is trained, `working` is what a worker does, `crew` has
several do it, `halving` says who goes on, `coordinator` runs a search from generation to
generation, `outcome` is what it found, and `searching` joins them.

A search is made of generations, and everything in it follows from the seed and from generations
that are whole.  So it ends alike with one worker or with many, undisturbed or killed and gone on
with, as long as a training does.
"""
