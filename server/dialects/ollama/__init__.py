"""The Ollama API: generate, chat, and what clients ask about models."""
