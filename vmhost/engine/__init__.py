"""The engine: observe, execute, apply with undo, recover, verify. It touches the world only through the ports."""
