"""Clean faces made as bad as video makes them, by a seeded generator: for training and for judging."""

from stream.lab.damage.recipe import LEVELS, DamageRecipe, damage, draw

__all__ = ["LEVELS", "DamageRecipe", "damage", "draw"]
