"""The sample kind `image_text`: an image with its caption."""
