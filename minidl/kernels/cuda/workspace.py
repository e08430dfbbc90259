"""How many images go through a convolution's patches or tiles at a time."""

WORKSPACE = 1 << 30  # bytes of them at once, or those of one image if they are more


def pieces(images: int, image_bytes: int) -> list[slice]:
    """All images in slices of about one size, as few as the workspace allows; at least one, be it of no images."""
    most = max(WORKSPACE // max(image_bytes, 1), 1)
    number = max(-(-images // most), 1)
    size = max(-(-images // number), 1)
    return [slice(i, i + size) for i in range(0, max(images, 1), size)]
