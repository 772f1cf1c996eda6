"""Network architectures, written from the papers; importing this package imports torch."""

from stream.nets.discriminator import Discriminator
from stream.nets.gpen import GPEN
from stream.nets.loader import build_generator, load_generator
from stream.nets.single import OneCropGPEN

__all__ = ["GPEN", "Discriminator", "OneCropGPEN", "build_generator", "load_generator"]
