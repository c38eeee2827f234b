"""What runs in a worker process, never in the server's: TensorFlow and model files."""
