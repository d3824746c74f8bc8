"""ROS 2 node for a session of the MIER adaptation service. Only `node` knows ROS; the rest is tested without."""
