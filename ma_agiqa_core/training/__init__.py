"""Training on any labelled set; see docs/training.md for the commands.

train, loop, state         one run from labelled pictures to a model; its loop; what a killed run resumes from
settings                   the protocol and its presets
preparation                checks, accelerate, the semantic model, the pictures
picture_cache              pictures, decoded and resized once
semantic_vectors           semantic vectors, asked for once
batches, augmentation      the order of pictures, batches prefetched in threads, turns and flips
network, dct_patch_init    the network with its initial weights, and its optimizer
losses                     squared error, and the order of pairs
outputs, curves_plot       metrics.json, predictions.csv, curves.png, and what the checkpoint says of itself
progress                   the callback that a run reports to
distillation               a small scorer that follows a big one
"""
