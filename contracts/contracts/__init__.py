"""What Sori's services share: events, queues, the job document with its rule, and HTTP bodies. No I/O."""
