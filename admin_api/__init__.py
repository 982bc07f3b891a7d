"""The admin API and the status page: reads what the services know, requeues what is dead. Holds no state of its own."""
