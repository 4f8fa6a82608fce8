"""Sizes for people."""


def gib(size: int) -> str:
    """Bytes as GiB, or as MiB below one GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
