"""What a picture is described by where a taste is learned: lite's features, or a frozen model's of transformers."""
