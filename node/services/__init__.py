"""One use case a file: each takes its ports as arguments and one unit of work a step."""
