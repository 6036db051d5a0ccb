"""Find the networks that fit: candidates proposed, looked at untrained, and trained in rungs.

`base` is the pipeline and what of it is free, `proposals` asks Optuna for candidates, `looking`
says what one costs before it is trained, `tasks` is what workers are handed and `working` how they
do it, `crew` has several do it and `ray_crew` a cluster, `halving` says who goes on, `coordinator`
runs a search from generation to generation, `outcome` is what it found, and `searching` joins them.

A search is made of generations, and everything in it follows from the seed and from generations
that are whole.  So it ends alike with one worker or with many, undisturbed or killed and gone on
with, as long as a training does.
"""
