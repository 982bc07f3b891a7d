"""Where jobs run: a worker claims them, a process of its own runs them."""
