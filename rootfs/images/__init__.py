"""Images on this machine: what they are (image-spec), the store of blobs, layers and names, and their archives."""
