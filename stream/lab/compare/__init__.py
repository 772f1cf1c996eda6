"""Two videos or two pictures side by side: figures, a page that stands alone, a sheet, a video."""
