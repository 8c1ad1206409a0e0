"""The supply chain of images: what is in them, who says so, whether they may be used."""
