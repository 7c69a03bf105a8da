"""What is wrong with an installation. Nothing here needs JAX to be found or to work."""
