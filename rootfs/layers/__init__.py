"""Layers of images: reading tar, unpacking it into a directory for overlay, and packing such a directory again."""
