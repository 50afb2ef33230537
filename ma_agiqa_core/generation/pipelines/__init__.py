"""What is known about diffusers' pipelines and schedulers."""
