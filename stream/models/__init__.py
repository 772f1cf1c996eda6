"""What a weights file is, where it comes from, and what runs it."""
