"""Pure rules: no Trio, no sockets, no clocks, no threads."""
