"""Settings: one frozen tree that forbids unknown keys, read once and handed down in parts."""
