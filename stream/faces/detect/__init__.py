"""Finds faces in one picture."""
