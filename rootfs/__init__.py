"""Root filesystems: images, overlay, mounts, the machine's own /usr."""
