"""A simulated network, disk and clock under the real shard core, all driven by one seed."""
