"""Clean faces made as bad as video makes them, by a seeded generator: for training and for judging."""

from stream.damage.recipe import LEVELS, Recipe, damage, draw

__all__ = ["LEVELS", "Recipe", "damage", "draw"]
