"""Chats, whatever the dialect: from messages and tools to one request, and from its events to a message."""
