"""Video and picture files: probing, decoding and encoding, and copying of all other streams."""
