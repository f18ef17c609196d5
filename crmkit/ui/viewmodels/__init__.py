"""The state of the screens in plain Python: no widget, no kernel, no browser."""
