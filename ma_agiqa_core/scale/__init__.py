"""Very many pictures: sources, engines, parts. `score_dataset` is the door, `ScoreActor` for pipelines of one's own."""
