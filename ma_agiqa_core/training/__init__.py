"""Training and evaluation on any set of pictures with human scores; see README.md for the commands.

labels, label_tables   a table of scores and a folder of pictures become a checked `LabelledSet`
datasets               the published sets by name
splits                 which rows train, validate and test
"""
