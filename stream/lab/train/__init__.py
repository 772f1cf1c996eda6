"""Training a restorer: faces in, damage made on the fly, weights out."""
