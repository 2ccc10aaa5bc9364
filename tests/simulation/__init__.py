"""The real core on a simulated network, disk and clock."""
