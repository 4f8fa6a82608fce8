"""OpenAI's Responses API. Understands Kobold's field names too."""
