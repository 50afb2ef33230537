"""Training and evaluation on any set of pictures with human scores; see docs/training.md for the commands.

labels, label_tables   a table of scores and a folder of pictures become a checked `LabelledSet`
datasets               the published sets by name
splits, joined_sets    which rows train, validate and test; several sets as one
settings               the protocol and its presets
train, training_run    one run: preparation (checks, accelerate), network, batches, losses, results, curves
training_state         what a run that was killed goes on from
pixels, vectors        the pictures and their semantic vectors, each made once
"""
