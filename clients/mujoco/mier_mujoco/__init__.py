"""The bundled MuJoCo client: runs each test task of a family as a robot would, against a running service."""
