"""A decoded picture and the faces in it: frames, colour, pixel formats, geometry, resampling, JPEG."""
