"""Training: dalle2-pytorch's prior and decoder in a loop that can be killed anywhere and goes on where it was."""
