"""`python -m ma_agiqa_core.cli` is `ma-agiqa`."""

from . import main

main()
