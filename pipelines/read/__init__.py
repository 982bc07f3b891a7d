"""From the instances of a series to a `Volume`: every slice is checked before a voxel is believed."""
