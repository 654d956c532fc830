"""One module per wire protocol. A surface translates, and decides nothing."""
