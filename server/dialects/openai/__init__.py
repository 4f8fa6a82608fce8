"""The OpenAI API: models, completions, chat completions. Understands Kobold's field names too."""
