"""Pictures with human scores: tables, published data sets, splits."""
