"""Network architectures, written from the papers; importing this package imports torch."""

from stream.nets.discriminator import Discriminator
from stream.nets.gpen import GPEN
from stream.nets.loader import build_generator, load_generator

__all__ = ["GPEN", "Discriminator", "build_generator", "load_generator"]
