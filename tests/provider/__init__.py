"""A model provider behind the scripted upstream: one script of answers, in the wire format of each API."""
