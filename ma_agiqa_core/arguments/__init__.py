"""What callers pass: numbers and options, checked and said in messages."""
