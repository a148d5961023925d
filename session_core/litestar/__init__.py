"""The Litestar plugin: injection, routes, commands, problem responses."""
