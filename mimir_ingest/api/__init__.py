"""HTTP routes, one module a component."""
