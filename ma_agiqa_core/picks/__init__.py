"""What people picked: marks, pairs and ratings of pictures, and the files that hold them."""
