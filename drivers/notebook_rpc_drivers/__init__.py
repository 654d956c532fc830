"""The drivers that come with notebook_rpc: one module per database."""
