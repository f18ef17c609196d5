"""The widgets: thin views over the view models, each a Python class with its JavaScript and CSS beside it."""
