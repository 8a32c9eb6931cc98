"""The network: transforms, entropy model, its frozen integer form, weights."""
