"""The engine beside others: one bundle through the node and through MONAI; images one by one and together."""
