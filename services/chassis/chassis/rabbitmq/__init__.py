"""RabbitMQ: the connection, the topology, publishing with confirmation, consuming, and repairing what was lost."""
