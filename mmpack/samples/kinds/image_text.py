"""An image with its caption."""
