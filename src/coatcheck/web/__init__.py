"""Floor 3: the frameworks. They carry requests in and responses out, and judge nothing."""
