"""The database: the only place that knows SQL. Rows are an index over the disk, and the queues between stages."""
