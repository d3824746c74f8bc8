"""`mierctl`: what an operator does to a service's data folder, also while the service runs."""
