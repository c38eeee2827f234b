"""Storage backends that ship with the server, as plug-ins: it finds them by entry-point name only."""
