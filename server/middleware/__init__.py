"""What surrounds every request, as plain ASGI: headers, ids, crashes, spellings of paths."""
