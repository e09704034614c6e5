"""The pages a person sees: templates, static files and the router that serves them."""
