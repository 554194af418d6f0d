"""Pictures: pure functions from recorded numbers to matplotlib figures."""
