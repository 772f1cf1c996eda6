"""Network architectures, written from the papers. Importing this package imports torch."""

from stream.models.nets.discriminator import Discriminator
from stream.models.nets.gpen import GPEN
from stream.models.nets.loader import build_generator, load_generator
from stream.models.nets.one_crop import OneCropGPEN

__all__ = ["GPEN", "Discriminator", "OneCropGPEN", "build_generator", "load_generator"]
