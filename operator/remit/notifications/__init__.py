"""Telling people: alerts from what is observed, and their way to chat, mail, webhooks and an Alertmanager.

`sources` makes alerts of objects and checks, `grouping` decides what is sent and when, and both are pure. `receivers`
sends, and `notifier` puts them together.
"""
