"""One decoded picture, and the values of faces in it: planes, colour, pixel formats, geometry."""
