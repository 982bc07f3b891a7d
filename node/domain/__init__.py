"""The pure core: what a study, a job and a delivery are, and how their states move.

Nothing here does I/O, reads a clock or imports a framework; time and randomness arrive as arguments.
"""
