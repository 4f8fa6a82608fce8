"""The Anthropic API: messages and their token counts. Understands Kobold's field names too."""
