"""Quality of a restoration: measures of pictures, faces and video, and evaluation against baselines."""
