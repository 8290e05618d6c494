"""What a report draws beyond scores, as JSON's types."""
