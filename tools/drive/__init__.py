"""The parts of a made-up drive: its motion, its world, what the sensors record, and what goes wrong."""
