"""Training of a restorer on aligned faces that are damaged during training."""
