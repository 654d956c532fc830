"""What everybody's driver must do, as checks that ship with the package.

``notebook-rpc check-driver URL`` runs them; so do our own tests. They need no pytest.
"""
