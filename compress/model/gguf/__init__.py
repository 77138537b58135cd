"""GGUF files as models: what llama.cpp calls things, and how a file is read."""
