"""How many digits of a score are worth showing, in the report and on the command line alike."""

import math


def decimals_for(span: float) -> int:
    """Three digits of a range: 0.713 of 0..1, 3.14 of 1..5, 71.3 of 0..100; three decimals where it has no width."""
    return min(max(3 - math.ceil(math.log10(span)), 0), 4) if math.isfinite(span) and span > 0 else 3
