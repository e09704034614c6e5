"""The API, described: its OpenAPI document and the page that shows it."""
