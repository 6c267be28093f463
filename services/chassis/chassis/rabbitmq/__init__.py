"""RabbitMQ: the connection, the topology, publishing with confirmation, consuming, and mending what was lost."""
