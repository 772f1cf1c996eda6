"""What a restoration is worth: figures of pictures, of faces and of video, and who else could do it."""
