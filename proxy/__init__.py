"""The data plane: the request path between an app and its upstream."""
