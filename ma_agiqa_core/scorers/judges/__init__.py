"""Judges that people use, each as the figure of its paper, one module each."""
