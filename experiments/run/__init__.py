"""A run: its setting, its phases and steps, and what it leaves in its folder."""
