"""How the weights of `lite` are made: `python -m ma_agiqa_core.scorers.lite.recipe.train`."""
