"""Input, output and tasks: everything that makes a replica a node."""
