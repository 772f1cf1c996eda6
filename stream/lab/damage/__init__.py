"""Simulated video damage for clean faces, seeded, for training and evaluation."""

from stream.lab.damage.recipe import LEVELS, DamageRecipe, damage, draw

__all__ = ["LEVELS", "DamageRecipe", "damage", "draw"]
