"""What the demo provider remembers."""
