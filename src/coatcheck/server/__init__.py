"""The auth server: accounts, pages and a JSON API around coatcheck; it uses the library's public API only.

`coatcheck serve` runs it; `create_app(Server(settings))` is the same thing as an ASGI application.
"""
