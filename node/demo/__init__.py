"""``ainode demo``: the whole way on one machine, with a small PACS of its own."""
