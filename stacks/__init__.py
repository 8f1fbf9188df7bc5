"""What runs: the catalogue of stacks, their settings, the rendered files and the engines that run them."""
