"""What is written about pictures: records, prompt tables, the PNG chunk."""
