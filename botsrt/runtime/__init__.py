"""The asynchronous side: takes messages in, runs turns, sends answers. It owns no rows; services do."""
