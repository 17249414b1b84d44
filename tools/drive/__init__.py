"""The parts of a synthetic drive: motion of the car, scene, sensors and planted faults."""
