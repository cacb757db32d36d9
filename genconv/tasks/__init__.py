"""What people do with a trained energy."""
