"""What people do with a trained energy, without training again."""
