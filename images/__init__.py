"""What is built: one folder an image, and the functions that build, find and push them."""
