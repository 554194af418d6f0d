"""The methods, each a value in a module of its own or of its family."""
