"""Models: their weights files, where the files come from, and the engines that run them."""
